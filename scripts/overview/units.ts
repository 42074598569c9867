/** Values as the units of the panels say them; the units are those of Grafana that the overview uses. */
export function shownAs(unit: string, nowSeconds: number, value: number): string {
  if (!Number.isFinite(value)) return '–'
  if (unit === 'dateTimeFromNow') return `${duration(Math.max(0, nowSeconds - value / 1000))} ago`
  const form = FORMS[unit] ?? plain
  return form(value)
}

const FORMS: Readonly<Record<string, (value: number) => string>> = {
  s: duration,
  ops: (value) => `${plain(value)}/s`,
  percentunit: (value) => `${digits(value * 100)} %`,
  bytes,
}

function plain(value: number): string {
  if (Math.abs(value) >= 1e6) return `${digits(value / 1e6)} M`
  if (Math.abs(value) >= 10_000) return `${digits(value / 1e3)} K`
  return digits(value)
}

function digits(value: number): string {
  const size = Math.abs(value)
  if (size >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString('en')
  return String(Number(value.toFixed(size >= 10 ? 1 : size >= 0.1 ? 2 : 3)))
}

function duration(seconds: number): string {
  const size = Math.abs(seconds)
  if (size === 0) return '0 s'
  if (size < 1) return `${digits(seconds * 1000)} ms`
  if (size < 120) return `${digits(seconds)} s`
  if (size < 7200) return `${digits(seconds / 60)} min`
  return size < 172_800 ? `${digits(seconds / 3600)} h` : `${digits(seconds / 86_400)} d`
}

function bytes(value: number): string {
  const power = value <= 0 ? 0 : Math.min(4, Math.floor(Math.log2(value) / 10))
  return `${digits(value / 1024 ** power)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}`
}

/** Steps of an axis that a reader can count by: at most `most`, from 0 to at least `top`. */
export function ticks(unit: string, top: number, most: number): number[] {
  const steps = unit === 's' ? TIME_STEPS : unit === 'bytes' ? BYTE_STEPS : []
  const step = steps.find((each) => top / each <= most) ?? roundStep(top / most)
  const count = Math.max(1, Math.ceil(top / step - 1e-9))
  return Array.from({ length: count + 1 }, (_, at) => at * step)
}

const TIME_STEPS = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600,
]
const BYTE_STEPS = Array.from({ length: 40 }, (_, power) => 2 ** (power + 8))

function roundStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least))
  return ([1, 2, 5, 10].find((each) => each * power >= least) ?? 10) * power
}
