/* The other end of QMP: one connection, one command at a time, events dropped. Blocks, with a limit. */
#pragma once
#include <json-c/json.h>

#include "base/err.h"

enum { QMP_CLIENT_MS = 30000 }; /* a monitor that says nothing for so long is gone */

struct qmp_client;

/* "tcp:HOST:PORT", "unix:PATH" or just PATH. Greeting and negotiation are done when it returns 0. */
int qmp_client_connect(const char *address, struct qmp_client **out, struct err *err);
/* args may be NULL and stays the caller's; *result, when wanted, is the caller's to put. An error answer is -EREMOTEIO
 * with its text; a lost connection is -EPIPE. */
int qmp_client_call(struct qmp_client *client, const char *command, struct json_object *args,
                    struct json_object **result, struct err *err);
void qmp_client_close(struct qmp_client *client); /* NULL allowed */
