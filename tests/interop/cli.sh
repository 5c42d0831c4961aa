#!/usr/bin/env bash
# The shim by which the OpenTDF cross-SDK suite (`xtest`) drives our SDK.
#
#   cli.sh encrypt|decrypt SRC DST ztdf
#   cli.sh supports FEATURE        0: has it, 1: does not, 2: unknown
#
# From the suite's environment: PLATFORMURL, CLIENTID, CLIENTSECRET, TOKENENDPOINT, and
#   XT_WITH_ATTRIBUTES   FQNs, with commas        XT_WITH_TARGET_MODE   4.3.0, or refused
#   XT_WITH_ASSERTIONS   JSON, or its path        XT_WITH_ASSERTION_VERIFICATION_KEYS   a path
#   XT_WITH_VERIFY_ASSERTIONS=false               lists what does not verify, and opens
# XT_WITH_ECWRAP asks for nothing: the wrap is of the kind of the key that the server publishes, and
# answers are sealed to P-256 keys always. XT_WITH_MIME_TYPE is left out: files name none but
# application/octet-stream. What the SDK does not have ends with exit code 4 and says so.
# ENVELOCK_LEDGER_KEY: the ledger key to pin; without it the one that the server names for itself.
# ENVELOCK_PYTHON: the Python that has the SDK.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
python=${ENVELOCK_PYTHON:-$here/../../.venv/bin/python}
driver=("$python" "$here/ours/driver.py")

if [ "${1:-}" = supports ]; then
  exec "${driver[@]}" supports "${2:-}"
fi
if [ $# -ne 4 ] || [ "$4" != ztdf ]; then
  echo "usage: cli.sh encrypt|decrypt SRC DST ztdf, or cli.sh supports FEATURE" >&2
  exit 2
fi
options=(--server "$PLATFORMURL" --client-id "$CLIENTID" --token-endpoint "$TOKENENDPOINT")
options+=(--in "$2" --out "$3")
case "$1" in
  encrypt)
    IFS=, read -r -a attributes <<<"${XT_WITH_ATTRIBUTES:-}"
    for attribute in "${attributes[@]}"; do options+=(--attr "$attribute"); done
    [ -z "${XT_WITH_ASSERTIONS:-}" ] || options+=(--assertions "$XT_WITH_ASSERTIONS")
    [ -z "${XT_WITH_TARGET_MODE:-}" ] || options+=(--target "$XT_WITH_TARGET_MODE")
    [ "${XT_WITH_PLAINTEXT_POLICY:-}" != true ] || { echo "no plaintext policies" >&2; exit 4; }
    ;;
  decrypt)
    keys=${XT_WITH_ASSERTION_VERIFICATION_KEYS:-}
    [ -z "$keys" ] || options+=(--assertion-keys "$keys")
    [ "${XT_WITH_VERIFY_ASSERTIONS:-}" != false ] || options+=(--unverified-assertions)
    [ "${XT_WITH_IGNORE_KAS_ALLOWLIST:-}" != true ] || options+=(--any-kas)
    options+=(--legacy)
    ;;
  *)
    echo "unknown operation $1" >&2
    exit 2
    ;;
esac
export CLIENTSECRET
exec "${driver[@]}" "$1" "${options[@]}"
