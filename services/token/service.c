/* SPDX-License-Identifier: Apache-2.0 */
/* What both faces do alike: count, note it, and find out whether anybody waits. Any thread. */
#include "service.h"

#include <stdio.h>

static struct models *take_ref(struct service *s, struct models *const *which)
{
    pthread_mutex_lock(&s->lock);
    struct models *m = models_ref(*which);
    pthread_mutex_unlock(&s->lock);
    return m;
}

struct models *service_models(struct service *s)
{
    return take_ref(s, &s->models);
}

struct models *service_vocabularies(struct service *s)
{
    return take_ref(s, &s->vocabularies);
}

void service_use_vocabularies(struct service *s, struct models *takes)
{
    struct models *old_models = NULL;
    pthread_mutex_lock(&s->lock);
    struct models *old = s->vocabularies;
    s->vocabularies = takes;
    if (!s->configured) {
        old_models = s->models;
        s->models = models_ref(takes);
    }
    pthread_mutex_unlock(&s->lock);
    models_unref(old);
    models_unref(old_models);
}

void service_use_models(struct service *s, struct models *takes)
{
    pthread_mutex_lock(&s->lock);
    struct models *old = s->models;
    s->models = takes;
    s->configured = true;
    pthread_mutex_unlock(&s->lock);
    models_unref(old);
}

static bool nobody_waits(void *ctx)
{
    const struct waiter *w = ctx;
    if (pool_is_ending(w->service->pool)) return true;
    if (w->http != NULL) return http_client_is_gone(w->http);
    return w->deadline_ns != 0 && clock_mono_ns(w->service->clock) >= w->deadline_ns;
}

void waiter_init(struct waiter *w, const struct service *s, const struct http_request *http)
{
    *w = (struct waiter){ .stop = { nobody_waits, w }, .service = s, .http = http };
}

enum err service_count(struct service *s, const struct models *models, struct token_request *q,
                       size_t bytes, const struct waiter *w, struct arena *a,
                       struct chat_count *ret, struct chat_error *error)
{
    struct model_info info;
    uint64_t start = clock_mono_ns(s->clock);
    models_find(models, q->model, &info);
    q->chat.now = (int64_t)(clock_wall_ns(s->clock) / 1000000000);
    q->chat.stop = &w->stop;
    enum err e = token_request_count(q, &info, a, ret, error);
    struct str label = info.vocab != NULL ? info.vocabulary : STR("estimate");
    double seconds = (double)(clock_mono_ns(s->clock) - start) / 1e9;
    metric_observe(metrics_get(s->metrics, M_SECONDS, &label), seconds);
    metric_add(metrics_get(s->metrics, M_BYTES, &label), (double)bytes);
    if (e == ERR_OK) metric_add(metrics_get(s->metrics, M_TOKENS, &label), (double)ret->tokens);
    return e;
}

static const char *outcome_of(int status)
{
    return status < 400             ? "ok"
           : status == 413          ? "too_large"
           : status == SERVICE_GONE ? "gone"
           : status == 503          ? "busy"
           : status < 500           ? "invalid"
                                    : "failed";
}

void service_note_request(struct service *s, const char *endpoint, int status)
{
    char text[12];
    (void)snprintf(text, sizeof text, "%d", status);
    struct str labels[3] = { str_of(endpoint), str_of(text), str_of(outcome_of(status)) };
    metric_inc(metrics_get(s->metrics, M_REQUESTS, labels));
}
