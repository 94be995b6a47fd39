/* SPDX-License-Identifier: Apache-2.0 */
/* The assembler puts the file in: the path is from the root of the tree, where make runs. */
#include "openapi.h"

__asm__(".section .rodata\n"
        ".global aigw_openapi_begin\n"
        ".global aigw_openapi_end\n"
        "aigw_openapi_begin:\n"
        ".incbin \"proto/openapi/admin.yaml\"\n"
        "aigw_openapi_end:\n"
        ".byte 0\n"
        ".previous\n");

extern const char aigw_openapi_begin[], aigw_openapi_end[];

struct str openapi_yaml(void)
{
    return str_n(aigw_openapi_begin, (size_t)(aigw_openapi_end - aigw_openapi_begin));
}
