//! Runs every command of docs/clients.md that works on Linux against a firewall that drops
//! everything. Checks what it opens with knockd-rs and with knockd 0.8, which listen side by side.

use crate::Test;
use crate::lab::{CLIENT, Daemon, ROUTER, Scene, knock_binary};
use crate::lines;
use std::path::Path;

pub const TESTS: &[Test] = &[(
    "commands_of_the_clients_page_open_what_it_says",
    commands_of_the_clients_page_open_what_it_says,
)];

const PAGE: &str = include_str!("../../docs/clients.md");

/// knockd 0.8.
const ORIGINAL: &str = "/usr/sbin/knockd";

/// A command on the page and the comment above it.
struct Example<'a> {
    /// The door that it opens; `None` for no door.
    door: Option<&'a str>,
    /// knockd 0.8 behaves the same.
    with_original: bool,
    /// The program that the test runs for `nc`.
    netcat: &'a str,
    command: &'a str,
}

/// The contents of the first fenced block of that kind.
fn block<'a>(text: &'a str, kind: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&format!("```{kind}\n"))?;
    Some(after.split_once("```").expect("an end of the block").0)
}

fn examples() -> Vec<Example<'static>> {
    let mut all = Vec::new();
    for part in PAGE.split("<!-- opens ").skip(1) {
        let (note, rest) = part.split_once(" -->").expect("an end of the comment");
        let mut notes = note.split("; ");
        let door = notes.next().filter(|door| *door != "nothing");
        let notes: Vec<&str> = notes.collect();
        let netcats = notes.iter().find_map(|note| note.strip_prefix("nc: "));
        for netcat in netcats.unwrap_or("nc").split(", ") {
            all.push(Example {
                door,
                with_original: notes.contains(&"knockd 0.8 too"),
                netcat,
                command: block(rest, "sh").expect("a command"),
            });
        }
    }
    let blocks = PAGE.matches("```sh\n").count();
    let comments = PAGE.matches("<!-- opens ").count();
    assert_eq!(blocks, comments, "each command has a comment");
    all
}

fn commands_of_the_clients_page_open_what_it_says() {
    assert!(Path::new(ORIGINAL).exists(), "knockd 0.8 is not installed");
    let doors = block(PAGE, "ini").expect("the doors");
    // Run in parallel, because each mostly waits for time-outs.
    let examples = examples();
    assert!(examples.len() > 20);
    std::thread::scope(|scope| {
        for some in examples.chunks(examples.len().div_ceil(6)) {
            scope.spawn(move || some.iter().for_each(|example| play(example, doors)));
        }
    });
}

fn play(example: &Example<'_>, doors: &str) {
    let scene = Scene::new();
    let ours = scene.daemon(doors);
    let config = format!("[options]\n[fence]\nsequence = 9:udp\n{doors}");
    let mut original = scene.router.command(ORIGINAL);
    original
        .args(["-v", "-i", "wan0", "-c"])
        .arg(scene.home.write("original.conf", &config));
    let original = Daemon::run(original);
    original.await_text("listening");

    let bin = knock_binary();
    let bin = bin.parent().expect("a directory").display();
    let command = example
        .command
        .replace("router.example.net", ROUTER)
        .replace("nc -", &format!("{} -", example.netcat));
    let mut client = scene.wan.command("timeout");
    client
        .args(["60", "bash", "-c"])
        .arg(format!("PATH={bin}:$PATH; {command}"));
    let output = client.output().expect("bash");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("not found"), "{command}: {said}");
    // The same packet is a fence for both.
    scene.fence(&ours);
    original.await_text("fence: OPEN SESAME");

    for door in ["tcp", "udp"] {
        let opens = example.door == Some(door);
        let line = lines::opened(CLIENT, door);
        assert_eq!(ours.count(&line) > 0, opens, "{command}: {door}: {said}");
        if example.with_original {
            assert_eq!(original.count(&line) > 0, opens, "0.8: {command}: {door}");
        }
    }
}
