/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a behaviour, as a model's name, and as a request body of each API. */
#include <stdlib.h>

#include "services/mockllm/behave.h"
#include "services/mockllm/llm_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct behave b;
    struct llm_request r;
    struct why why;
    struct str rest, text = str_n((const char *)data, size);
    if (size == 0) return 0;
    behave_init(&b);
    if (behave_parse(&b, text, ';', &why) == ERR_OK &&
        (b.per_event < 1 || b.tokens < -1 || b.headers_len > BEHAVE_MAX_HEADERS))
        abort();
    (void)behave_model(text, &rest);
    behave_init(&b);
    if (rest.p != NULL && behave_parse(&b, rest, ',', NULL) != ERR_OK) behave_init(&b);
    enum api api = (enum api)(data[0] % API_MAX);
    if (llm_request_parse(api, str_n(text.p + 1, size - 1), &r, &why) == ERR_OK) {
        if (r.n < 1 || r.n > LLM_MAX_INPUTS) abort();
        (void)llm_request_words(&r);
        llm_request_done(&r);
    }
    return 0;
}
