const sizeUnits: Readonly<Record<string, number>> = {
  B: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
};

const timeUnits: Readonly<Record<string, number>> = {
  s: 1,
  min: 60,
  h: 3600,
  d: 86_400,
};

function parseWith(units: Readonly<Record<string, number>>, text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?([A-Za-z]+)$/.exec(text);
  const unit = match === null ? undefined : units[match[2]!];
  const value = unit === undefined ? Number.NaN : Number(match![1]) * unit;
  return Number.isSafeInteger(value) ? value : undefined;
}

/** Bytes of a text like `"64 MiB"`, or `undefined` if it is not one. */
export function parseSize(text: string): number | undefined {
  return parseWith(sizeUnits, text);
}

/** Seconds of a text like `"90 s"`, `"10 min"`, `"2 h"`, `"30 d"`, or `undefined` if it is not one. */
export function parseDuration(text: string): number | undefined {
  return parseWith(timeUnits, text);
}

function formatWith(units: Readonly<Record<string, number>>, value: number): string {
  const fitting = Object.entries(units).filter(([, size]) => value >= size && value % size === 0);
  const [name, size] = fitting.at(-1) ?? Object.entries(units)[0]!;
  return `${value / size} ${name}`;
}

/** The shortest exact text for a number of bytes, in a form that {@link parseSize} reads. */
export function formatSize(bytes: number): string {
  return formatWith(sizeUnits, bytes);
}

/** The shortest exact text for a number of seconds, in a form that {@link parseDuration} reads. */
export function formatDuration(seconds: number): string {
  return formatWith(timeUnits, seconds);
}
