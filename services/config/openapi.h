/* SPDX-License-Identifier: Apache-2.0 */
/* The description of the admin API, as it stands in proto/openapi/admin.yaml when this was built.
 */
#ifndef CONFIG_OPENAPI_H
#define CONFIG_OPENAPI_H

#include "base/str.h"

struct str openapi_yaml(void);

#endif
