"""Every finding that the doctor knows: stable id, severity, cause and next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["warning", "blocker"]


@dataclass(frozen=True)
class Kind:
    """What is always true of a finding with this id."""

    severity: Severity
    cause: str
    next_step: str


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be, with what was measured."""

    id: str
    severity: Severity
    evidence: str
    cause: str
    next_step: str


def _blocker(cause: str, next_step: str) -> Kind:
    return Kind("blocker", cause, next_step)


def _warning(cause: str, next_step: str) -> Kind:
    return Kind("warning", cause, next_step)


SITE = "./bootstrap.sh, or ansible/playbooks/site.yml"
VERIFY = "ansible/playbooks/verify.yml shows the layers; site.yml or upgrade.yml aligns them"

KINDS: dict[str, Kind] = {
    "host.os": _blocker("The release has no packages for this operating system.",
                        "Choose a release that lists it: ansible/docs/catalogue.md"),
    "host.architecture": _blocker("ROCm exists for x86_64 alone.", "Use another machine."),
    "host.wsl": _warning("Under WSL the GPU is /dev/dxg, which rocm/pytorch images do not use.",
                         "Install on Linux itself, or compute on the CPU."),
    "host.memory": _warning("A model is read through the host's memory before the GPU has it.",
                            "8 GiB are needed for small models, 32 GiB for large ones."),
    "host.memory_available": _warning("Other programs hold nearly all memory.",
                                      "ps aux --sort=-rss shows them."),
    "host.swap": _warning("Little memory and no swap: the first peak kills a process.",
                          "Add a swap file."),
    "host.shm": _warning("torch shares tensors through /dev/shm.",
                         "The container needs shm_size 1g; site.yml sets it."),
    "host.memlock": _warning("The driver locks memory (ROCm/hip#3716).",
                             "site.yml --tags kernel_tuning sets the limit; log in again."),
    "host.cgroup": _warning("Memory limits and OOM counters of cgroup v1 are not read.",
                            "Boot with systemd.unified_cgroup_hierarchy=1."),
    "host.clock": _warning("A clock that jumps makes leases and heartbeats look wrong.",
                           "timedatectl set-ntp true"),
    "disk.data_full": _blocker("Below the floor nothing is accepted.",
                               "Delete old jobs, or move the data folder."),
    "disk.data_low": _warning("Pictures and models soon find no place.",
                              "Set keep_jobs_days, or move the data folder."),
    "disk.engine_low": _warning("An upgrade needs place for a second image.",
                                "docker image prune removes images that nothing uses."),
    "disk.inodes": _warning("Without inodes no file can be made, however much space is free.",
                            "Delete small files below the data folder."),
    "disk.network": _blocker("SQLite's locks do not hold on network file systems.",
                             "Put data_dir on a local disk, or use PostgreSQL."),
    "disk.read_only": _blocker("The data folder is mounted read-only.",
                               "dmesg says whether the disk failed; mount it for writing."),
    "gpu.none": _blocker("The release computes on an AMD GPU and the kernel shows none.",
                         "lspci -nn shows the card; compute_device = cpu does without."),
    "gpu.driver_not_loaded": _blocker("The card is on the bus and amdgpu is not loaded.",
                                      "modprobe amdgpu; dmesg says why it did not load."),
    "gpu.dkms_not_loaded": _warning("The vendor's driver is installed, the kernel's own runs.",
                                    "dkms status; then reboot."),
    "gpu.kfd_missing": _blocker("Without /dev/kfd nothing computes.",
                                "The kernel needs CONFIG_HSA_AMD; a container needs the device."),
    "gpu.render_node_missing": _blocker("ROCm skips a card whose render node is missing.",
                                        "A container needs the card's /dev/dri/renderD*."),
    "gpu.node_permissions": _blocker("Containers reach the card as members of its node's group.",
                                     "site.yml --tags gpu_access writes the udev rule."),
    "gpu.node_hidden": _warning("A cgroup or container hides a card.",
                                "Hand the device over, if it is wanted."),
    "gpu.wanted_missing": _blocker("The GPU that was asked for is not here.",
                                   "Give one of those that are (preflight_gpu)."),
    "gpu.integrated_visible": _warning("HIP also sees the processor's graphics (TheRock#3392).",
                                       "site.yml sets ROCR_VISIBLE_DEVICES to the card's UUID."),
    "gpu.not_used": _warning("There is an AMD GPU, and the release computes on the CPU.",
                             "upgrade.yml -e rocm_catalogue_release=auto"),
    "gpu.group_missing": _warning("There is no group render, so nobody can be let in by it.",
                                  "site.yml --tags gpu_access makes it."),
    "gpu.membership": _warning("You are not in the group of the GPU's nodes.",
                               "site.yml -e '{\"gpu_access_users\": [\"YOU\"]}'; log in again."),
    "gpu.iommu_off": _warning("AMD advises against switching the IOMMU off (iommu.rst).",
                              "Use iommu=pt instead."),
    "gpu.memory": _warning("Less than 8 GiB of the card's memory: large pictures climb rungs.",
                           "GET /system shows the largest size."),
    "engine.missing": _blocker("No container engine answers.", "systemctl start docker"),
    "engine.container_missing": _blocker("A container of the service does not exist.", SITE),
    "engine.container_stopped": _blocker("A container of the service does not run.",
                                         "docker logs NAME says why; docker start NAME"),
    "engine.container_unhealthy": _warning("A container's health check fails.",
                                           "docker inspect --format '{{json .State.Health}}' NAME"),
    "engine.restarting": _warning("A container was started again by the engine.",
                                  "docker logs NAME"),
    "engine.image": _warning("What runs is not what was recorded.", SITE),
    "install.missing": _warning("Nothing was provisioned here.", SITE),
    "install.unreadable": _blocker("host.json is there and cannot be read.", SITE),
    "install.settings": _blocker("settings.toml or a ROCKILN_ variable is wrong.",
                                 "Correct what is named."),
    "service.unreachable": _blocker("Nobody answers at the published address.",
                                    "docker ps; docker logs rockiln-proxy rockiln-api"),
    "service.not_ready": _blocker("The service says that it cannot make pictures.",
                                  "As its reason says."),
    "worker.missing": _blocker("No worker has ever reported.", "docker logs rockiln-worker"),
    "worker.stale": _blocker("The worker stopped reporting.", "docker logs rockiln-worker"),
    "worker.failed": _blocker("The worker cannot start its engine.", "docker logs rockiln-worker"),
    "worker.wedged": _blocker("The GPU did not let go of a killed engine.",
                              "dmesg; reset the GPU, then rockiln unwedge; or reboot the host."),
    "worker.restarts": _warning("Engines die often.", "GET /system lists the faults with steps."),
    "worker.on_cpu": _warning("The release is for a GPU, and the engine computes on the CPU.",
                              "The findings about gpu and alignment say why."),
    "worker.wheels": _blocker("Something replaced or added packages beside torch.",
                              "Build the image again from its lock."),
    "faults.recent": _warning("An attempt failed within the last hour.",
                              "GET /system lists the faults with steps."),
    "queue.nearly_full": _warning("New jobs will soon be refused.", "Wait, or add a worker."),
    "queue.stuck": _blocker("Jobs wait and no worker works.", "The findings about worker say why."),
    "refusals.active": _warning("A kind of request is refused: it killed the engine.",
                                "GET /system names it and the time left."),
    "store.missing": _warning("There is no job store yet.", "rockiln store migrate"),
    "store.unreadable": _warning("This user, or this version, cannot read the job store.",
                                 "Run the doctor as root, and the one of the running release."),
    "store.corrupt": _blocker("The job store is damaged.", "service/docs/store.md: restore"),
    "store.artefacts": _blocker("The pictures belong to another store.",
                                "Put back the folder that belongs here."),
    "cache.empty": _warning("No compiled kernels yet: the first picture takes minutes.",
                            "rockiln warmup MODEL --sizes 512x512"),
    **{
        f"alignment.{layer}": _blocker(cause, VERIFY)
        for layer, cause in {
            "container": "The worker's container does not answer.",
            "image": "The running image is not the recorded one.",
            "rocm": "The container holds another ROCm than the catalogue's row.",
            "torch": "The container holds another torch than the catalogue's row.",
            "torch_build": "torch is built for something else; pip replaced it.",
            "hip_library": "The HIP runtime is missing or there are two.",
            "python": "The container's Python is not the row's.",
            "driver": "The loaded driver is outside the window of the container's user space.",
            "gpu": "The image has no kernels for this GPU.",
            "device_nodes": "The GPU's nodes are missing or not for their group.",
            "environment": "A variable does nothing for this release, or not what it seems to.",
            "settings": "The service is set to another backend than its image's.",
        }.items()
    },
    "alignment.known_bad": _warning("Somebody saw this pair of host and release fail.",
                                    "Read the source, or choose another release."),
}  # fmt: skip


def finding(name: str, evidence: str, *, next_step: str = "") -> Finding:
    """A finding of a known kind; a measured next step replaces the general one."""
    kind = KINDS[name]
    return Finding(name, kind.severity, evidence, kind.cause, next_step or kind.next_step)
