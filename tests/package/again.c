/* Lets an emulated program execute itself (tests/package/emulated): runs the emulator for the same
 * CPU and program under the requested name. -D defines EMULATOR, CPU and PROGRAM. */
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
