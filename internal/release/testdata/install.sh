#!/bin/sh
# Installs, upgrades, removes and purges a Debian package with dpkg, in an overlay of this machine's root
# that is dropped afterwards, and verifies its units. A stand-in for systemctl writes its arguments to
# standard output. Run it in a mount namespace of its own: unshare --mount install.sh PACKAGE DIR.
# DIR is an empty directory.
set -eu
package=$1 dir=$2
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
root=$dir/root
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/run/systemd/system" "$root/run/tools"
printf '#!/bin/sh\necho "systemctl $*"\n' >"$root/run/tools/systemctl"
chmod 755 "$root/run/tools/systemctl"
cp "$package" "$root/run/drover.deb"
inside() { chroot "$root" /usr/bin/env PATH=/run/tools:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"; }
step() { echo "== $1"; }

step install
inside dpkg --install /run/drover.deb
inside /usr/bin/drover version
step verify
if inside which systemd-analyze >/dev/null; then
	inside systemd-analyze verify --recursive-errors=no drover.service drover@orders.service && echo "units verified"
fi
step upgrade
inside dpkg --install /run/drover.deb
# What an administrator and two daemons leave.
echo "version: 1" >"$root/etc/drover/drover.yaml"
mkdir -p "$root/var/lib/private/drover/nats" "$root/var/lib/private/drover-orders" "$root/etc/systemd/system/multi-user.target.wants"
ln -s private/drover "$root/var/lib/drover"
ln -s private/drover-orders "$root/var/lib/drover-orders"
ln -s /usr/lib/systemd/system/drover.service "$root/etc/systemd/system/multi-user.target.wants/drover.service"
left() {
	(cd "$root" && for path in usr/bin/drover usr/lib/systemd/system/drover.service etc/drover/drover.yaml var/lib/private/drover var/lib/drover \
		var/lib/private/drover-orders var/lib/drover-orders etc/systemd/system/multi-user.target.wants/drover.service; do
		if [ -e "$path" ] || [ -L "$path" ]; then echo "left $path"; fi
	done)
}
step remove
inside dpkg --remove drover
left
step purge
inside dpkg --purge drover
left
