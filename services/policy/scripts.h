/* SPDX-License-Identifier: Apache-2.0 */
/* The scripts that Redis runs, as text: the files in scripts/, taken in when this is compiled. */
#ifndef POLICY_SCRIPTS_H
#define POLICY_SCRIPTS_H

extern const char script_lease[], script_epoch[], script_counter[]; /* NUL-terminated */

#endif
