/** Durations and sizes as people read them: the one form for the commands, the provenance and the page. */

const sizeUnits = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes with a unit: `1.5 MiB`. Rounded before the unit is chosen, or a byte less than 1 MiB would be `1024 KiB`. */
export function sizeText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (Math.round(value) >= 1024 && unit < sizeUnits.length - 1) {
    value /= 1024;
    unit++;
  }
  const rounded = unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1);
  return `${rounded} ${sizeUnits[unit]}`;
}

/**
 * How long something takes or has lasted: `850 ms`, `4.2 s`, `12 s`, from a minute on in its two largest units,
 * `3 d 4 h`. Rounded before it is split, or 59.96 s would be `60 s`.
 */
export function durationText(seconds: number): string {
  const microseconds = Math.round(seconds * 1_000_000);
  if (microseconds > 0 && microseconds < 1000) return `${microseconds} µs`;
  const milliseconds = Math.round(seconds * 1000);
  if (milliseconds > 0 && milliseconds < 1000) return `${milliseconds} ms`;
  const tenths = Math.round(seconds * 10);
  if (tenths < 100) return `${tenths / 10} s`;
  const whole = Math.round(seconds);
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  return parts
    .slice(first, first + 2)
    .filter(([value]) => value > 0)
    .map(([value, unit]) => `${value} ${unit}`)
    .join(" ");
}

/** How long ago an ISO 8601 time was. */
export function agoText(time: string, now = Date.now()): string {
  return durationText(Math.max(0, Math.round((now - Date.parse(time)) / 1000)));
}
