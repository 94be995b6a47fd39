/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between libcurl and libnghttp2: no stream of HTTP/2 is reset that is over already.
 *
 * At the end of an answer libcurl 7.88 forgets that its stream has ended, and resets it: each
 * answer costs a RST_STREAM that means nothing. Servers count those, since resets in numbers are an
 * attack (CVE-2023-44487): nghttp2 closes a connection after a thousand of them, others after two
 * hundred. So the function that libcurl calls is found here first, and hands on only what is about
 * a stream that there is. Where libcurl is not bound to libnghttp2 at run time, nothing of this
 * takes part.
 *
 * Called by libcurl, on whatever thread calls that.
 */
#include <curl/curl.h>
#include <dlfcn.h>

#include "rt/http_client_multi_impl.h"

/* As libnghttp2 declares them; its header is not needed for the rest. */
typedef int submit_fn(void *session, uint8_t flags, int32_t stream, uint32_t code);
typedef void *find_fn(void *session, int32_t stream);
submit_fn nghttp2_submit_rst_stream;

static submit_fn *next_submit; /* set once, before libcurl has a session */
static find_fn *next_find;

void http_multi_spare_resets(void)
{
    /* POSIX has it that the pointers are alike; ISO C does not say so. */
    *(void **)&next_submit = dlsym(RTLD_NEXT, "nghttp2_submit_rst_stream");
    *(void **)&next_find = dlsym(RTLD_NEXT, "nghttp2_session_find_stream");
}

int nghttp2_submit_rst_stream(void *session, uint8_t flags, int32_t stream, uint32_t code)
{
    static const int invalid_state = -519;
    if (next_submit == NULL) return invalid_state;
    if (next_find != NULL && stream > 0 && next_find(session, stream) == NULL) return 0;
    return next_submit(session, flags, stream, code);
}
