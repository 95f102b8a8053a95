"""What stands between callers and a fleet: the client library itself, or a proxy that knows gRPC."""

import json
import pathlib
import subprocess
import sys

from fleet import ROOT, free_ports, wait_until

import grpc


class RoundRobin:
    """The client library has all addresses and takes them by turns."""

    name = "round_robin"
    # What the servers behind it need.
    flags = ()

    def __init__(self, folder, addresses):
        self.target = "ipv4:" + ",".join(addresses)

    def channel(self):
        own = [
            # By itself the library would send the list as the host's name, which HTTP/2 forbids.
            ("grpc.default_authority", "localhost"),
            # A server has its turn while its health service says so: not yet while it loads models,
            # and no longer when it was told to stop.
            ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ]
        return grpc.aio.insecure_channel(self.target, options() + own)

    def stop(self):
        pass


class Proxy:
    """A proxy as a process of its own."""

    flags = ()

    def __init__(self, folder, addresses):
        (self.port,) = free_ports(1)
        self.target = f"127.0.0.1:{self.port}"
        self.log = pathlib.Path(folder) / f"{self.name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command(pathlib.Path(folder), addresses),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )

        def connects():
            assert self.process.poll() is None, self.log.read_text()
            with grpc.insecure_channel(self.target) as channel:
                try:
                    grpc.channel_ready_future(channel).result(1)
                    return True
                except grpc.FutureTimeoutError:
                    return False

        wait_until(connects, f"{self.name} listens")

    def channel(self):
        return grpc.aio.insecure_channel(self.target, options())

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Nginx(Proxy):
    """Passes each call on over a connection that it takes from a pool. It learns from failed
    connections that a server is away; a call that was not sent is given to the next server."""

    name = "nginx"

    def channel(self):
        # It asks nobody whether they are ready, so callers try again what a server that still loads
        # its models has refused.
        own = [("grpc.service_config", json.dumps(RETRIES))]
        return grpc.aio.insecure_channel(self.target, options() + own)

    def command(self, folder, addresses):
        servers = "\n".join(f"server {each} max_fails=1 fail_timeout=1s;" for each in addresses)
        (folder / "nginx.conf").write_text(f"""
            daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;
            events {{ worker_connections 1024; }}
            http {{
                access_log off;
                client_body_temp_path {folder}/nginx-body;
                proxy_temp_path {folder}/nginx-proxy; fastcgi_temp_path {folder}/nginx-fastcgi;
                uwsgi_temp_path {folder}/nginx-uwsgi; scgi_temp_path {folder}/nginx-scgi;
                upstream fleet {{ {servers} keepalive 64; }}
                server {{
                    listen 127.0.0.1:{self.port} http2;
                    # The pool of a connection is for one call at a time.
                    keepalive_requests 1000000;
                    location / {{ grpc_pass grpc://fleet; }}
                }}
            }}""")
        return [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


class Envoy(Proxy):
    """Asks each server's health service, and passes each call on over connections that many calls
    share."""

    name = "envoy"
    # Five times the interval of its checks: it has stopped sending before a server closes.
    flags = ("--drain-pause-ms", "1000")

    def command(self, folder, addresses):
        def address(text):
            host, port = text.rsplit(":", 1)
            return {"socket_address": {"address": host, "port_value": int(port)}}

        typed = "type.googleapis.com/envoy.extensions"
        router = {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{typed}.filters.http.router.v3.Router"},
        }
        route = {"cluster": "fleet", "timeout": "0s"}
        connections = {
            "@type": f"{typed}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "codec_type": "HTTP2",
            "http_filters": [router],
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": route}],
                    }
                ]
            },
        }
        http = {
            "@type": f"{typed}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        cluster = {
            "name": "fleet",
            "type": "STATIC",
            "connect_timeout": "1s",
            "lb_policy": "ROUND_ROBIN",
            "common_lb_config": {
                # Never a server that is known to be away, however many are.
                "healthy_panic_threshold": {"value": 0},
                # What checks have found holds at once. By default it may take a second, which the
                # servers' pause would have to cover.
                "update_merge_window": "0s",
            },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http
            },
            "health_checks": [
                {
                    "timeout": "1s",
                    "interval": "0.2s",
                    "no_traffic_interval": "0.2s",
                    "unhealthy_threshold": 1,
                    "healthy_threshold": 1,
                    "grpc_health_check": {},
                }
            ],
            "load_assignment": {
                "cluster_name": "fleet",
                "endpoints": [
                    {
                        "lb_endpoints": [
                            {"endpoint": {"address": address(each)}} for each in addresses
                        ]
                    }
                ],
            },
        }
        listener = {
            "address": address(self.target),
            "filter_chains": [
                {
                    "filters": [
                        {
                            "name": "envoy.filters.network.http_connection_manager",
                            "typed_config": connections,
                        }
                    ]
                }
            ],
        }
        file = folder / "envoy.json"
        resources = {"listeners": [listener], "clusters": [cluster]}
        file.write_text(json.dumps({"static_resources": resources}))
        binary = pathlib.Path(sys.executable).with_name("envoy")
        return [str(binary), "-c", str(file), "--concurrency", "1", "-l", "warning",
                "--disable-hot-restart"]


NGINX = ROOT / ".tools" / "nginx" / "usr" / "sbin" / "nginx"

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
}


RETRIES = {
    "methodConfig": [{
        "name": [{}],
        "retryPolicy": {
            "maxAttempts": 5,
            "initialBackoff": "0.05s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }]
}


def options():
    """Of a channel: a short wait before an address is tried again. Without `RETRIES`, no call is
    ever repeated that a server may have seen."""
    return [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 500),
    ]


FRONTS = {front.name: front for front in (RoundRobin, Nginx, Envoy)}
