import { addFile, connectClient } from "../client.ts";
import type { Bench, Measure, Row } from "../measure.ts";
import { inRounds, median, timed } from "../rounds.ts";
import { type SubjectName, type Subjects, startSubjects, subjectNames } from "../subjects.ts";

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;
const AT_ONCE = 8;

/** MiB a second. The same contents every time: upstream writes and hashes them before it sees that it has them. */
async function throughput({ sockets }: Subjects, name: SubjectName, clients: number): Promise<number> {
  const open = await Promise.all(Array.from({ length: clients }, () => connectClient(sockets[name])));
  const milliseconds = await timed(() => Promise.all(open.map((client) => addFile(client, "added", GIB))));
  for (const client of open) client.close();
  return (clients * GIB) / MIB / (milliseconds / 1000);
}

async function rowsFor(
  subjects: Subjects,
  rounds: number,
  clients: number,
  label: string,
  judged: boolean,
): Promise<Row[]> {
  const growths: number[] = [];
  const { ours, ...others } = await inRounds(rounds, subjectNames, async (name) => {
    const { broker } = subjects;
    const before = broker.resident;
    if (name === "ours") broker.forgetPeak();
    const speed = await throughput(subjects, name, clients);
    if (name === "ours") growths.push((broker.peak - before) / MIB);
    return speed;
  });
  const bound = { bound: "at least", value: 0.95, against: "direct" } as const;
  return [
    { measure: `adding ${label}`, unit: "MiB/s", ours, others, ...(judged && { target: bound }) },
    {
      measure: `  the service grows by`,
      unit: "MiB",
      ours: median(growths),
      others: {},
      target: { bound: "at most", value: 20, against: "itself" },
    },
  ];
}

async function warmUp(subjects: Subjects): Promise<void> {
  await throughput(subjects, "direct", 1);
  await throughput(subjects, "ours", 1);
}

export const add: Measure = {
  name: "add",
  about: "add 1 GiB by AddToStore to a store on tmpfs, one client and eight at once",
  async run(bench: Bench) {
    const subjects = await bench.subjects();
    await warmUp(subjects);
    return [
      ...(await rowsFor(subjects, bench.rounds, 1, "1 GiB, store on tmpfs", true)),
      // Eight times the work: fewer rounds tell as much.
      ...(await rowsFor(subjects, Math.ceil(bench.rounds / 4), AT_ONCE, `${AT_ONCE} × 1 GiB at once`, false)),
    ];
  },
};

export const addOnDisk: Measure = {
  name: "add-disk",
  about: "add 1 GiB to a store on disk: the disk decides, so this is reported only",
  async run(bench: Bench) {
    const memory = await bench.subjects();
    const subjects = await startSubjects(memory.daemon.version, false);
    try {
      await warmUp(subjects);
      return await rowsFor(subjects, Math.ceil(bench.rounds / 3), 1, "1 GiB, store on disk", false);
    } finally {
      await subjects.stop();
    }
  },
};
