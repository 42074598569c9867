import type { Answered, Series, Window } from './asking.ts'
import { type Box, COLOURS, element, fitting, line, LINES, round, text } from './svg.ts'
import { shownAs, ticks } from './units.ts'

const AXIS_WIDTH = 54
const LEGEND_LINE = 15
const LEGEND_SIZE = 10.5
/** What is not shown is counted. */
const MOST_LEGENDS = 8

/** Lines over time, with a legend that tells the last value of each. */
export function chart({ panel, series }: Answered, box: Box, window: Window): string {
  const unit = panel.fieldConfig?.defaults.unit ?? 'short'
  const known = series.filter(({ points }) => points.some(([, value]) => Number.isFinite(value)))
  const legends = legend(known, unit, box)
  const plot: Box = {
    x: box.x + AXIS_WIDTH,
    y: box.y + 6,
    width: box.width - AXIS_WIDTH - 22,
    height: box.height - 6 - 20 - legends.height,
  }
  const top = Math.max(...known.flatMap(({ points }) => points.map(([, value]) => finite(value))), 0)
  const scale = ticks(unit, top === 0 ? 1 : top * 1.04, Math.max(2, Math.floor(plot.height / 28)))
  const last = scale.at(-1) ?? 1
  const at = (seconds: number, value: number): [number, number] => [
    plot.x + ((seconds - window.fromSeconds) / (window.toSeconds - window.fromSeconds)) * plot.width,
    plot.y + plot.height * (1 - value / last),
  ]
  const lines = known.map((each, index) => path(each, colourOf(each, index), at, window.stepSeconds))
  const empty = text(plot.x + plot.width / 2, plot.y + plot.height / 2, 'no data', {
    colour: COLOURS.quiet,
    anchor: 'middle',
  })
  return [grid(plot, unit, scale), times(plot, window), ...(known.length === 0 ? [empty] : lines), legends.drawn].join(
    '',
  )
}

/** Dashed and red in the dashboard, and here. */
const isThreshold = ({ legend }: Series): boolean => legend === 'threshold'

function colourOf(series: Series, index: number): string {
  return isThreshold(series) ? COLOURS.red : (LINES[index % LINES.length] ?? COLOURS.text)
}

function grid(plot: Box, unit: string, scale: readonly number[]): string {
  const last = scale.at(-1) ?? 1
  return scale
    .map((value) => {
      const y = plot.y + plot.height * (1 - value / last)
      const name = text(plot.x - 6, y + 3.5, shownAs(unit, 0, value), {
        size: 10,
        colour: COLOURS.quiet,
        anchor: 'end',
      })
      return line([plot.x, y], [plot.x + plot.width, y], { stroke: COLOURS.grid }) + name
    })
    .join('')
}

/** Minutes since the run began. */
function times(plot: Box, { fromSeconds, toSeconds }: Window): string {
  const minutes = Math.floor((toSeconds - fromSeconds) / 60)
  const step = Math.max(1, Math.ceil(minutes / 6))
  return Array.from({ length: Math.floor(minutes / step) + 1 }, (_, index) => index * step)
    .map((minute) => {
      const x = plot.x + ((minute * 60) / (toSeconds - fromSeconds)) * plot.width
      return text(x, plot.y + plot.height + 14, `${minute} min`, { size: 10, colour: COLOURS.quiet, anchor: 'middle' })
    })
    .join('')
}

type Place = (seconds: number, value: number) => [number, number]

/** Where there was nothing for a while, the line is broken, as Grafana breaks it. */
function path(series: Series, colour: string, at: Place, stepSeconds: number): string {
  let before = -Infinity
  const steps = series.points
    .filter(([, value]) => Number.isFinite(value))
    .map(([seconds, value]) => {
      const [x, y] = at(seconds, value)
      const verb = seconds - before > stepSeconds * 1.5 ? 'M' : 'L'
      before = seconds
      return `${verb}${round(x)} ${round(y)}`
    })
  const dash = isThreshold(series) ? { 'stroke-dasharray': '6 5' } : {}
  return element('path', {
    d: steps.join(''),
    fill: 'none',
    stroke: colour,
    'stroke-width': 1.6,
    'stroke-linejoin': 'round',
    ...dash,
  })
}

function legend(series: readonly Series[], unit: string, box: Box): { drawn: string; height: number } {
  const names = series.slice(0, MOST_LEGENDS).map((each, index) => {
    const last = each.points.at(-1)?.[1] ?? NaN
    return { colour: colourOf(each, index), said: `${each.legend}  ${shownAs(unit, 0, last)}` }
  })
  if (series.length > MOST_LEGENDS)
    names.push({ colour: COLOURS.grid, said: `and ${series.length - MOST_LEGENDS} more` })
  const places: { x: number; row: number }[] = []
  let [x, row] = [box.x + 12, 0]
  for (const { said } of names) {
    const width = 22 + said.length * LEGEND_SIZE * 0.54
    if (x + width > box.x + box.width - 4 && x > box.x + 12) [x, row] = [box.x + 12, row + 1]
    places.push({ x, row })
    x += width
  }
  const rows = names.length === 0 ? 0 : row + 1
  const bottom = box.y + box.height - rows * LEGEND_LINE - 4
  const drawn = names.map(({ colour, said }, index) => {
    const place = places[index] ?? { x: 0, row: 0 }
    const y = bottom + (place.row + 1) * LEGEND_LINE - 4
    const mark = line([place.x, y - 4], [place.x + 12, y - 4], { stroke: colour, 'stroke-width': 3 })
    return mark + text(place.x + 16, y, fitting(said, box.width - 40, LEGEND_SIZE), { size: LEGEND_SIZE })
  })
  return { drawn: drawn.join(''), height: rows * LEGEND_LINE + 6 }
}

function finite(value: number): number {
  return Number.isFinite(value) ? value : 0
}
