#!/bin/sh
# govulncheck needs its database. Where that cannot be reached, say so and go on; what it finds fails the build.
set -u
out=$("${GOVULNCHECK:?}" ./... 2>&1)
code=$?
case "$out" in
*"fetching vulnerabilities"* | *"dial tcp"* | *"no such host"* | *"connection refused"*)
	echo "govulncheck: skipped, its database cannot be reached from here"
	exit 0
	;;
esac
echo "$out"
exit "$code"
