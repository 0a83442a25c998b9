/* What an emulated program executes to run itself again (tests/package/emulated): the emulator, for the same CPU and program,
 * under the name that was asked for. EMULATOR, CPU and PROGRAM: by -D. */
#include <stdio.h>
#include <unistd.h>

int main(int count, char **words)
{
    if (count != 1) {
        fprintf(stderr, "again: takes a name and no arguments\n");
        return 2;
    }
    execl(EMULATOR, EMULATOR, "-cpu", CPU, "-0", words[0], PROGRAM, (char *)NULL);
    perror(EMULATOR);
    return 127;
}
