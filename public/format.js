const percents = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });

/** 0.98213 → "98.2%". Never "100%" or "0%" for what is only close to it: no model is that sure. */
export function percent(probability) {
  if (probability < 1 && probability > 0.9994) return "> 99.9%";
  if (probability > 0 && probability < 0.0006) return "< 0.1%";
  return percents.format(probability);
}

/** Milliseconds with as many digits as help: 0.31 → "0.3 ms", 48.2 → "48 ms", 2310 → "2.3 s". */
export function duration(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** Bytes in binary units, as the server counts its limits: 10485760 → "10 MiB". */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${Math.round(bytes / 1024)} KiB`;
  return `${Number((bytes / 1024 / 1024).toFixed(1))} MiB`;
}

/** Seconds as minutes and seconds: 65.5 → "1:05". */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** `count` with its noun: "1 photo", "3 photos". */
export function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
