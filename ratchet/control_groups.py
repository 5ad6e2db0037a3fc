"""Linux's control groups, whose limits this process lives under: those of a container, a Slurm job or a systemd unit."""

from __future__ import annotations

from pathlib import Path

_LISTING, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def own_groups(controller: str, listing: Path = _LISTING, root: Path = _ROOT) -> list[Path]:
    """The folders that may hold a limit of `controller` (`memory`, `cpu`): of the process's group, and of all above it.

    In a container the two roots, of cgroups version 2 and 1, are its own group. Outside of one the group is a path below
    them, and a job's limit may be some levels up. Not each of the folders exists.
    """
    found = [root, root / controller]
    try:
        lines = listing.read_text().splitlines()
    except OSError:  # not Linux
        return found
    for line in lines:
        _, names, path = line.split(":", 2)
        if names == "" or controller in names.split(","):  # version 2 has one group, and names no controller
            mount = root if names == "" else root / controller
            own = mount / path.strip("/")
            found += [folder for folder in (own, *own.parents) if folder != mount and folder.is_relative_to(mount)]
    return found
