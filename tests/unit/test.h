/* What every unit test includes: cmocka behind its own header order. Asserts only on the main thread: worker threads
 * record what went wrong and the main thread asserts after the join. */
#pragma once
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
