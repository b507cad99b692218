/* A migration's report: as members of `__org.godwit_report`, and those members as aligned text in plain words. */
#pragma once
#include <stdio.h>

#include "base/json.h"
#include "migration/migration.h"

void report_json(struct json_object *own, const struct migration_info *info, const struct migration_report *report);

/* What is in `own`, of this program or of another version: what is not there is left out. Every line begins with two blanks
 * but those of headings. */
void report_text(struct json_object *own, FILE *out);
