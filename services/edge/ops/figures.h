/* SPDX-License-Identifier: Apache-2.0 */
/* What an edge tells Prometheus: its metrics, and those that are read off when they are asked for.
 */
#ifndef EDGE_FIGURES_H
#define EDGE_FIGURES_H

#include "base/metric.h"

struct daemon;

extern const struct metric_def figures[]; /* M_EDGE_MAX, by enum edge_metric */

/* Brings up to date what nobody counts as it happens. On the thread of the ops listener. */
void figures_scrape(struct daemon *d);

#endif
