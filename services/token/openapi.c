/* SPDX-License-Identifier: Apache-2.0 */
/* The assembler puts the file in: the path is from the root of the tree, where make runs. */
#include "service.h"

__asm__(".section .rodata\n"
        ".global aigw_token_openapi_begin\n"
        ".global aigw_token_openapi_end\n"
        "aigw_token_openapi_begin:\n"
        ".incbin \"proto/openapi/token.yaml\"\n"
        "aigw_token_openapi_end:\n"
        ".byte 0\n"
        ".previous\n");

extern const char aigw_token_openapi_begin[], aigw_token_openapi_end[];

struct str openapi_yaml(void)
{
    return str_n(aigw_token_openapi_begin,
                 (size_t)(aigw_token_openapi_end - aigw_token_openapi_begin));
}
