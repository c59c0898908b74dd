/** Numbers as people read them. */

const sizeUnits = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes with a unit: `1.5 MiB`. */
export function sizeText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < sizeUnits.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${sizeUnits[unit]}`;
}

/** How long something takes or has lasted, in its two largest units: `3 d 4 h`, `12 s`, `0.25 s`. */
export function durationText(seconds: number): string {
  if (seconds < 10 && !Number.isInteger(seconds)) return `${seconds.toFixed(2)} s`;
  const whole = Math.round(seconds);
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  const shown = first < 0 ? parts.slice(-1) : parts.slice(first, first + 2);
  return shown
    .filter(([value], index) => index === 0 || value > 0)
    .map(([value, unit]) => `${value} ${unit}`)
    .join(" ");
}

/** How long ago an ISO 8601 time was. */
export function agoText(time: string, now = Date.now()): string {
  return durationText(Math.max(0, Math.round((now - Date.parse(time)) / 1000)));
}
