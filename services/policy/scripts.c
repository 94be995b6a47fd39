/* SPDX-License-Identifier: Apache-2.0 */
/* Takes the scripts in as they are. The assembler looks for them from the repository's root, where
 * the compiler is run. */
#include "scripts.h"

#define SCRIPT(symbol, path)                      \
    __asm__(".section .rodata\n"                  \
            ".global " #symbol "\n" #symbol ":\n" \
            ".incbin \"" path "\"\n"              \
            ".byte 0\n"                           \
            ".previous\n")

SCRIPT(script_lease, "services/policy/scripts/lease.lua");
SCRIPT(script_epoch, "services/policy/scripts/epoch.lua");
SCRIPT(script_counter, "services/policy/scripts/counter.lua");
