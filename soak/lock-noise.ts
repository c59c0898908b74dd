/** Locks that have nothing to do with Nix: any user may take and drop as many as there is time for. */
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { Daemon } from "../lab/lab.ts";

/** In Perl, which every lab system has: `struct flock` of a 64-bit Linux, by fcntl(2). */
const script = `use Fcntl;
open my $file, "+>", $ARGV[0] or die "$ARGV[0]: $!";
sub lock { my ($type, $start, $length) = @_; fcntl $file, F_SETLK, pack("s s x4 q q l x4", $type, 0, $start, $length, 0) or die $!; }
for (;;) {
  lock(F_WRLCK, (400 - $_) * 2, 1) for 1 .. 400;
  lock(F_UNLCK, 0, 0);
}
`;

/** Two processes of nobody's do that for some seconds. */
export async function holdLocks(daemon: Daemon, seconds: number): Promise<void> {
  const children = [1, 2].map((number) =>
    daemon.spawn(["taskset", "-c", "0", "perl", "-e", script, `/tmp/locks-${number}`], { user: "nobody" }),
  );
  let errors = "";
  for (const child of children) {
    child.stdout?.resume();
    child.stderr?.on("data", (text: Buffer) => {
      errors += text.toString();
    });
  }
  const gone = children.map((child) => once(child, "exit"));
  await sleep(seconds * 1000);
  for (const child of children) child.kill("SIGKILL");
  const ends = await Promise.all(gone);
  if (ends.some(([code]) => code !== null)) throw new Error(`the locks ended by themselves: ${errors}`);
}
