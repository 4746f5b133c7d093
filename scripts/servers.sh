#!/bin/sh
# Names the Debian packages of the servers that tests of backends run on (tests/servers) and that are not installed; with
# "notice" it says what that means.
missing=
command -v redis-server >/dev/null || missing="$missing redis-server"
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
[ -e /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing="$missing rabbitmq-server"
[ -e /usr/sbin/mosquitto ] || missing="$missing mosquitto"
[ -e /usr/sbin/mariadbd ] || missing="$missing mariadb-server"
command -v etcd >/dev/null || missing="$missing etcd-server"
command -v memcached >/dev/null || missing="$missing memcached"
# What make mongo fetches runs on Java, from its source.
command -v mvn >/dev/null || missing="$missing maven"
command -v javac >/dev/null || missing="$missing default-jdk-headless"
[ -n "$missing" ] || exit 0
if [ "${1-}" = notice ]; then
	echo "Tests of backends whose servers are not installed were skipped. To run them too: apt-get install$missing"
else
	echo "$missing"
fi
