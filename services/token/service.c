/* SPDX-License-Identifier: Apache-2.0 */
/* What HTTP handlers and bus workers do alike: count, and note it. Any thread. */
#include "service.h"

#include <stdio.h>

struct models *service_models(struct service *s)
{
    pthread_mutex_lock(&s->lock);
    struct models *m = models_ref(s->models);
    pthread_mutex_unlock(&s->lock);
    return m;
}

void service_use_models(struct service *s, struct models *takes)
{
    pthread_mutex_lock(&s->lock);
    struct models *old = s->models;
    s->models = takes;
    pthread_mutex_unlock(&s->lock);
    models_unref(old);
}

enum err service_count(struct service *s, const struct models *models, struct token_request *q,
                       size_t bytes, struct arena *a, struct chat_count *ret,
                       struct chat_error *error)
{
    struct model_info info;
    uint64_t start = clock_mono_ns(s->clock);
    models_find(models, q->model, &info);
    q->chat.now = (int64_t)(clock_wall_ns(s->clock) / 1000000000);
    enum err e = token_request_count(q, &info, a, ret, error);
    struct str label = info.vocab != NULL ? info.vocabulary : STR("estimate");
    double seconds = (double)(clock_mono_ns(s->clock) - start) / 1e9;
    metric_observe(metrics_get(s->metrics, M_SECONDS, &label), seconds);
    metric_add(metrics_get(s->metrics, M_BYTES, &label), (double)bytes);
    if (e == ERR_OK) metric_add(metrics_get(s->metrics, M_TOKENS, &label), (double)ret->tokens);
    return e;
}

void service_note_request(struct service *s, const char *endpoint, int status)
{
    char text[12];
    (void)snprintf(text, sizeof text, "%d", status);
    struct str labels[2] = { str_of(endpoint), str_of(text) };
    metric_inc(metrics_get(s->metrics, M_REQUESTS, labels));
}
