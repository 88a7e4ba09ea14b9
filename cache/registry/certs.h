/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* containers-certs.d(5): what TLS needs for one registry. */

#include "paths.h"
#include "regfs/registries.h"

/* Sets ca_pem, client_cert and client_key of *ret from the first directory named HOST ("host[:port]") among the user's
 * containers/certs.d, the system's containers/certs.d and docker/certs.d; from nothing else when that one is empty.
 * A directory that this user may not read counts as empty, as with podman. No directory: nothing is set.
 * Returns 0, or -errno with E: -EBADMSG for a certificate without its key, or a key without its certificate. */
int certs_read(const struct config_paths *paths, const char *host, struct endpoint *ret, struct error *e);
