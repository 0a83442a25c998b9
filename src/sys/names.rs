//! Names and addresses: `getaddrinfo` and `getnameinfo`. Both may ask a DNS server and block for many seconds.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

/// Which addresses a name may stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// The resolver's first choice.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Why a name did not resolve. Shown in the C library's words, as knockd 0.8 does.
#[derive(Debug)]
pub struct NameError {
    /// `EAI_...`
    code: libc::c_int,
    /// What `errno` was; says more when the code is `EAI_SYSTEM`.
    system: io::Error,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code == libc::EAI_SYSTEM {
            return self.system.fmt(f);
        }
        // SAFETY: gai_strerror returns a C string that lives as long as the program, for any code.
        let text = unsafe { CStr::from_ptr(libc::gai_strerror(self.code)) };
        f.write_str(&text.to_string_lossy())
    }
}

/// The first address of a host (name or address, with a zone as in `fe80::1%eth0`).
pub fn resolve_host(host: &str, family: Family) -> Result<SocketAddr, NameError> {
    let family = match family {
        Family::Any => libc::AF_UNSPEC,
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    first_result(Some(host), None, family)
}

/// The port of a service name. As in knock 0.8 the name may be of any transport: `ssh:udp` is 22.
pub fn resolve_service(service: &str) -> Result<u16, NameError> {
    first_result(None, Some(service), libc::AF_UNSPEC).map(|address| address.port())
}

/// The address as text, with the name of its zone if it has one: knock 0.8 prints it so.
pub fn address_text(address: &SocketAddr) -> String {
    name_info(address, libc::NI_NUMERICHOST).unwrap_or_else(|| address.ip().to_string())
}

/// The host name of an address by reverse lookup; `None` if it has none or nobody answers.
pub fn host_name(address: IpAddr) -> Option<String> {
    name_info(&SocketAddr::new(address, 0), libc::NI_NAMEREQD)
}

fn first_result(
    host: Option<&str>,
    service: Option<&str>,
    family: libc::c_int,
) -> Result<SocketAddr, NameError> {
    let error = |code| NameError {
        code,
        system: io::Error::last_os_error(),
    };
    let c_string = |text: Option<&str>| text.map(CString::new).transpose();
    let (Ok(host), Ok(service)) = (c_string(host), c_string(service)) else {
        return Err(error(libc::EAI_NONAME)); // a NUL inside; argv cannot hold one
    };
    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |t| t.as_ptr());

    // SAFETY: addrinfo is plain C data, for which all zeros is the documented way to say "no hints".
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = family;
    let mut list: *mut libc::addrinfo = ptr::null_mut();
    // SAFETY: both names are null or C strings that outlive the call, `hints` is a valid addrinfo, and `list` is
    // a place for the result.
    let code = unsafe { libc::getaddrinfo(pointer(&host), pointer(&service), &hints, &mut list) };
    if code != 0 {
        return Err(error(code));
    }

    let mut found = None;
    let mut entry: *const libc::addrinfo = list;
    // SAFETY: after success `list` heads a list of addrinfo that is valid until freeaddrinfo; its links are valid or null.
    while let (None, Some(info)) = (found, unsafe { entry.as_ref() }) {
        // SAFETY: getaddrinfo makes `ai_addr` point to a sockaddr of `ai_family`, null or of the length it says.
        found = unsafe { from_raw(info.ai_family, info.ai_addr) };
        entry = info.ai_next;
    }
    // SAFETY: `list` came from getaddrinfo and is freed once; nothing points into it any more.
    unsafe { libc::freeaddrinfo(list) };
    found.ok_or_else(|| error(libc::EAI_NONAME))
}

fn name_info(address: &SocketAddr, flags: libc::c_int) -> Option<String> {
    let raw = RawAddress::new(address);
    let mut host = [0u8; libc::NI_MAXHOST as usize];
    // SAFETY: the address is a valid sockaddr of the length given, `host` a buffer of the length given; no service is
    // asked for, which a null buffer of length 0 says.
    let code = unsafe {
        libc::getnameinfo(
            raw.pointer(),
            raw.length(),
            host.as_mut_ptr().cast(),
            host.len() as libc::socklen_t,
            ptr::null_mut(),
            0,
            flags,
        )
    };
    if code != 0 {
        return None;
    }
    CStr::from_bytes_until_nul(&host)
        .ok()
        .map(|name| name.to_string_lossy().into_owned())
}

/// # Safety
/// `address` is null, or points to a sockaddr of that family, whole and aligned.
unsafe fn from_raw(family: libc::c_int, address: *const libc::sockaddr) -> Option<SocketAddr> {
    if address.is_null() {
        return None;
    }
    match family {
        libc::AF_INET => {
            // SAFETY: the caller says that it is a whole sockaddr_in.
            let v4 = unsafe { &*address.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the caller says that it is a whole sockaddr_in6.
            let v6 = unsafe { &*address.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// A socket address as the kernel and the C library take it.
#[derive(Debug)]
pub(super) enum RawAddress {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl RawAddress {
    pub(super) fn new(address: &SocketAddr) -> RawAddress {
        match address {
            SocketAddr::V4(v4) => RawAddress::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => RawAddress::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }

    /// Valid as long as this value stays where it is.
    pub(super) fn pointer(&self) -> *const libc::sockaddr {
        match self {
            RawAddress::V4(v4) => ptr::from_ref(v4).cast(),
            RawAddress::V6(v6) => ptr::from_ref(v6).cast(),
        }
    }

    pub(super) fn length(&self) -> libc::socklen_t {
        (match self {
            RawAddress::V4(_) => size_of::<libc::sockaddr_in>(),
            RawAddress::V6(_) => size_of::<libc::sockaddr_in6>(),
        }) as libc::socklen_t
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_resolve_to_themselves_without_a_dns_server() {
        for text in ["127.0.0.1", "::1", "::ffff:192.0.2.1", "2001:db8::1:0:0:7"] {
            let address = resolve_host(text, Family::Any).unwrap();
            assert_eq!(address, SocketAddr::new(text.parse().unwrap(), 0));
            assert_eq!(address_text(&address), text);
        }
    }

    #[test]
    fn a_zone_is_kept_and_shown_by_name() {
        let address = resolve_host("fe80::1%lo", Family::V6).unwrap();
        let SocketAddr::V6(v6) = address else {
            panic!("{address}")
        };
        assert_ne!(v6.scope_id(), 0);
        assert_eq!(address_text(&address), "fe80::1%lo");
    }

    #[test]
    fn the_wrong_family_and_unknown_services_are_errors_with_words() {
        assert!(
            resolve_host("::1", Family::V4)
                .unwrap_err()
                .to_string()
                .len()
                > 8
        );
        assert!(resolve_host("127.0.0.1", Family::V6).is_err());
        assert!(resolve_service("7300x").unwrap_err().to_string().len() > 8);
        assert!(resolve_host("a\0b", Family::Any).is_err());
    }
}
