"""What scripts/test-deploy.sh asks of the files that no tool of their platform can be had for.

Kubernetes: the schemas of its API, strictly, so that a key that does not exist is an error. Nomad: the
grammar of HCL and the keys of a job. Fly.io: TOML and the keys of flyctl. And of all of them: the
patience at a stop exceeds what the app and the final backup may take.
"""

import re
import sys
import tomllib

import hcl2
import kubernetes_validate
import yaml

# config.toml: what a platform has to wait for at the least, and some slack.
settings = tomllib.load(open("config.toml", "rb"))["shutdown"]
seconds = lambda text: int(text.removesuffix("s"))
NEEDED = seconds(settings["app_timeout"]) + seconds(settings["backup_timeout"]) + 10


def check(claim, what):
    if not claim:
        sys.exit(f"FAILED: {what}")


def known(where, keys, accepted):
    unknown = set(keys) - set(accepted.split())
    check(not unknown, f"{where}: unknown {sorted(unknown)}")


def kubernetes(path):
    pods = []
    for resource in yaml.safe_load_all(open(path)):
        # 1.29 is the oldest with sidecars that need no switch.
        for version in ("1.29", "1.33", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(resource, version, strict=True)
        if resource["kind"] == "StatefulSet":
            pods.append(resource["spec"]["template"]["spec"])
    (pod,) = pods
    check(pod["terminationGracePeriodSeconds"] >= NEEDED, f"{path}: too little patience")
    check(pod["securityContext"]["runAsNonRoot"], f"{path}: root")
    check(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", f"{path}: seccomp")
    containers = pod.get("initContainers", []) + pod["containers"]
    for container in containers:
        rights = container["securityContext"]
        check(rights["readOnlyRootFilesystem"], f"{path}: writable root")
        check(not rights["allowPrivilegeEscalation"], f"{path}: new privileges")
        check(rights["capabilities"]["drop"] == ["ALL"], f"{path}: capabilities")
    return containers


kubernetes("deploy/kubernetes/statefulset.yaml")
sidecar = kubernetes("deploy/kubernetes/sidecar.yaml")[0]
# Without this line it would be a step that has to end before the app starts, and would never.
check(sidecar["restartPolicy"] == "Always", "the sidecar is none")
check("startupProbe" in sidecar, "the app would not wait for the restore")

# Names are quoted and blocks are lists in what the parser gives.
job = open("deploy/simplebackup.nomad.hcl").read()
plain = lambda key: key.strip('"')


def block(parent, name):
    (found,) = parent[name] if isinstance(parent[name], list) else [parent[name]]
    while len(found) == 1 and isinstance(next(iter(found.values())), dict):
        (found,) = found.values()
    return {plain(key): value for key, value in found.items() if not key.startswith("__")}


tree = block(hcl2.loads(job), "job")
known("nomad job", tree, "type group datacenters namespace region")
group = block(tree, "group")
known("nomad group", group, "count network update service task restart ephemeral_disk")
known("nomad network", block(group, "network"), "mode port to static")
known("nomad update", block(group, "update"),
      "canary max_parallel health_check min_healthy_time healthy_deadline auto_revert stagger")
known("nomad service", block(group, "service"), "name port provider check tags")
task = block(group, "task")
known("nomad task", task, "driver kill_timeout kill_signal config env template resources user")
known("nomad docker driver", block(task, "config"),
      "image args ports readonly_rootfs cap_drop security_opt mount")
known("nomad resources", block(task, "resources"), "cpu memory memory_max")
check(seconds(plain(task["kill_timeout"])) >= NEEDED, "nomad: too little patience")
check(plain(task["kill_signal"]) == "SIGTERM", "nomad: another signal")
for template in task["template"]:
    known("nomad template", [plain(key) for key in template if not key.startswith("__")],
          "destination data perms uid gid change_mode env")

# The names are those of the structs of flyctl's appconfig.
fly = tomllib.load(open("deploy/fly.toml", "rb"))
known("fly.toml", fly, "app primary_region kill_signal kill_timeout env files mounts deploy "
      "http_service checks metrics vm build")
known("fly.toml files", fly["files"][0], "guest_path local_path secret_name raw_value processes")
known("fly.toml mounts", fly["mounts"][0], "source destination initial_size processes")
known("fly.toml deploy", fly["deploy"], "strategy wait_timeout max_unavailable release_command")
known("fly.toml http_service", fly["http_service"], "internal_port force_https auto_stop_machines "
      "auto_start_machines min_machines_running processes")
for name, probe in fly["checks"].items():
    known(f"fly.toml checks.{name}", probe,
          "type port path interval timeout grace_period method headers processes")
known("fly.toml vm", fly["vm"][0], "size memory cpus cpu_kind processes")
check(seconds(fly["kill_timeout"]) >= NEEDED, "fly.toml: too little patience")
check(fly["kill_signal"] == "SIGTERM", "fly.toml: another signal")

compose = yaml.safe_load(open("docker-compose.yml"))["services"]["app"]
check(seconds(compose["stop_grace_period"]) >= NEEDED, "compose: too little patience")
check(compose["read_only"] and compose["cap_drop"] == ["ALL"], "compose: too many rights")
unit = open("deploy/simplebackup.service").read()
check(int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M).group(1)) >= NEEDED, "systemd: too little patience")
