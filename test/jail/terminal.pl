# Runs a command at a terminal of its own, types the lines of standard input into it, and prints what appears on it.
use strict;
use POSIX ();

use constant { TIOCSPTLCK => 0x40045431, TIOCGPTN => 0x80045430, TIOCSCTTY => 0x540E };

open my $master, "+<", "/dev/ptmx" or die "ptmx: $!";
ioctl $master, TIOCSPTLCK, my $unlocked = pack "i", 0 or die "unlock: $!";
ioctl $master, TIOCGPTN, my $number = pack "I", 0 or die "number: $!";
my $terminal = "/dev/pts/" . unpack "I", $number;

my $child = fork;
if ($child == 0) {
  POSIX::setsid();
  open my $slave, "+<", $terminal or die "$terminal: $!";
  ioctl $slave, TIOCSCTTY, 0 or die "controlling terminal: $!";
  POSIX::dup2(fileno $slave, $_) for 0 .. 2;
  exec @ARGV or die "$ARGV[0]: $!";
}

my $feeder = fork;
if ($feeder == 0) {
  # A prompt tells that a program reads; without one, the terminal keeps what is typed until somebody does.
  while (my $line = <STDIN>) { syswrite $master, $line; sleep 1 }
  POSIX::_exit(0);
}
my $text;
print $text while sysread $master, $text, 4096;
waitpid $child, 0;
my $status = $?;
kill "KILL", $feeder;
print $status & 127 ? "\nended by signal " . ($status & 127) : "\nended with " . ($status >> 8), "\n";
