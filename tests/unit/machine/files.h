/* Files for tests of loaders: written to a folder of their own that goes at the end. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char files_folder[64];

static inline int files_begin(void **state)
{
    (void)state;
    snprintf(files_folder, sizeof(files_folder), "/tmp/godwit-test-XXXXXX");
    return mkdtemp(files_folder) ? 0 : -1;
}

static inline int files_end(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", files_folder);
    return system(command);
}

/* The path is valid until the next call with the same name. */
static inline void file_write(char path[128], const char *name, const void *data, size_t bytes)
{
    snprintf(path, 128, "%s/%s", files_folder, name);
    FILE *file = fopen(path, "we");
    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0)
        abort();
}
