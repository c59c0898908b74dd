# A builder that tries what it can. Prints "DONE: …" for each thing that it should not have been able to do.
export HOME=$PWD/home PAGER=cat NIX_PAGER=cat; mkdir -p "$HOME"
socket_folder=/nix/var/nix/daemon-socket
try() { if "$@" > /dev/null 2>&1; then echo "DONE: $*"; fi; }
must() { "$@" > said 2>&1 || { echo "FAILED: $*"; cat said; exit 1; }; }
for busybox in /lab/*/root/bin/busybox /lab/*/root/usr/bin/busybox; do test ! -x "$busybox" || break; done
mkdir tools; for tool in mount umount; do ln -s "$busybox" "tools/$tool"; done
export PATH=$PATH:$PWD/tools

# The argument is a store path, with a file in it.
attack_folders() {
  for folder in $socket_folder /etc/nix; do
    try touch "$folder/mine"
    try mkdir "$folder/folder"
    try ln -s /tmp/elsewhere "$folder/link"
    try chmod 777 "$folder"
    try rmdir "$folder"
    try rm -rf "$folder"
    try mv "$folder" "$folder.old"
  done
  for file in $socket_folder/socket /etc/nix/nix.conf; do
    try rm -f "$file"
    try mv "$file" "$file.old"
    try ln -sf /tmp/elsewhere "$file"
    try chmod 600 "$file"
  done
  try bash -c 'echo substitute = true >> /etc/nix/nix.conf'
  try touch "$1/new"
  try chmod u+w "$1"
  try chmod u+w "$1/file"
  try bash -c "echo more >> $1/file"
  try rm -rf "$1"
  try mv "$1" "$1.old"
}

# A path that is there, and is nobody's to change.
mkdir tree; echo text > tree/file
tree=$(nix-store --add ./tree)
attack_folders "$tree"
echo "ATTACKED as the builder"
# As root of a user namespace, with mounts of its own.
unshare --user --map-root-user --mount bash -c "$(declare -f try attack_folders)
  socket_folder=$socket_folder
  mount -o remount,rw,bind $socket_folder 2> /dev/null; mount -o remount,rw,bind /etc/nix 2> /dev/null
  attack_folders $tree; echo ATTACKED as root of a namespace" || true
# What it hides from itself is hidden for itself.
unshare --user --map-root-user --mount bash -c "
  mount -t tmpfs none /nix/store/../var; mkdir -p $socket_folder; touch $socket_folder/socket; echo ATTACKED by mounts" || true
test -S $socket_folder/socket || echo "DONE: the socket is hidden"
[ "$(cat "$tree/file")" = text ] || echo "DONE: changed $tree"

# Entries in the way of names to come: nothing is put where they lead.
mkdir trap; chmod 777 trap
for kind in link-to-folder link-to-nothing link-to-file folder file; do
  printf 'derivation { name = "%s"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo %s > $out; :" ]; }' $kind $kind > $kind.nix
  name=$(nix-store -q --outputs "$(nix-instantiate $kind.nix 2> /dev/null)")
  echo "before" > target
  case $kind in
    link-to-folder) ln -s "$PWD/trap" "$name" ;;
    link-to-nothing) ln -s "$PWD/trap/nothing" "$name" ;;
    link-to-file) ln -s "$PWD/target" "$name" ;;
    folder) mkdir "$name"; chmod 777 "$name"; touch "$name/full" ;;
    file) echo forged > "$name" ;;
  esac
  if nix-build --no-out-link $kind.nix > said 2>&1; then echo "DONE: built over $name"; else echo "REFUSED $kind: $(tr '\n' ' ' < said)"; fi
  [ "$(ls -A trap)" = "" ] || echo "DONE: wrote into the trap"
  [ "$(cat target)" = before ] || echo "DONE: wrote to the target"
done

# Processes that would outlive the build.
mkdir survivor
(setsid bash -c "while :; do date +%N > survivor/file; nix-store --add ./survivor; done" > /dev/null 2>&1 &)
(setsid unshare --user --map-root-user --mount --pid --fork bash -c "trap '' TERM HUP; while :; do date > survivor/file; nix-store --add ./survivor; sleep 0.01; done" > /dev/null 2>&1 &)

until [ -s survivor/file ]; do sleep 0.02; done
# All the same, it is served.
echo 'derivation { name = "afterwards"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo afterwards > $out; :" ]; }' > afterwards.nix
must nix-build --no-out-link afterwards.nix
path=$(tail -n 1 said)
[ "$(cat "$path")" = afterwards ]
ln -s "$path" "$out"
