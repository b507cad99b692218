/* `godwit migrate --monitor PATH URI ...`: drives one migration over QMP and says what came of it.
 *
 * Belongs to main.c's side of the house: it prints, and blocks. It knows the other process by its monitor alone. */
#pragma once

/* Exit codes say where the guest is. */
enum client_exit {
    CLIENT_MOVED = 0,
    CLIENT_NOT_STARTED = 1, /* error before start */
    CLIENT_USAGE = 2,
    CLIENT_FAILED = 3,  /* failed, the guest still runs on the source */
    CLIENT_GAVE_UP = 4, /* by policy, runs on the source */
    CLIENT_REFUSED = 5, /* the destination will not have it, runs on the source */
    CLIENT_UNKNOWN = 6, /* outcome unknown: nothing was resumed */
    CLIENT_CANCELLED = 130,
};

/* argv[0] is "migrate". Returns the process's exit code. */
int client_main(int argc, char **argv);
