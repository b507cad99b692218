/* A plan as JSON, and that as text for a person: in a monitor and by the client alike. */
#pragma once
#include <json-c/json.h>
#include <stdio.h>

#include "migration/plan.h"

struct json_object *plan_json(const struct plan_result *plan); /* the caller's */
void plan_print(struct json_object *plan, FILE *out);
