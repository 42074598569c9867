import type { Answered, Panel, Window } from './asking.ts'
import { chart } from './chart.ts'
import { type Box, COLOURS, element, fitting, line, rect, text } from './svg.ts'
import { shownAs } from './units.ts'

const WIDTH = 1240
const UNIT = 27
const GAP = 6
const COLUMN = (WIDTH - GAP) / 24
const CAPTION = 62

/** The whole page: panels where the dashboard has them, and how it came about below. */
export function draw(found: readonly Answered[], window: Window, caption: readonly string[]): string {
  const bottom = Math.max(...found.map(({ panel: { gridPos } }) => gridPos.y + gridPos.h)) * UNIT
  const height = bottom + CAPTION
  const page = rect({ x: 0, y: 0, width: WIDTH, height }, { fill: COLOURS.page, rx: 8 })
  const said = caption.map((each, at) => text(12, bottom + 18 + at * 16, each, { colour: COLOURS.quiet, size: 11.5 }))
  const family = 'Inter, Helvetica, Arial, sans-serif'
  return `${element(
    'svg',
    { xmlns: 'http://www.w3.org/2000/svg', viewBox: `0 0 ${WIDTH} ${height}`, 'font-family': family },
    `\n${[page, ...found.map((each) => panelOf(each, window)), ...said].join('\n')}\n`,
  )}\n`
}

function panelOf(answered: Answered, window: Window): string {
  const { panel } = answered
  const { x, y, w, h } = panel.gridPos
  const box = { x: x * COLUMN + GAP, y: y * UNIT + GAP, width: w * COLUMN - GAP, height: h * UNIT - GAP }
  if (panel.type === 'row') return text(box.x + 4, box.y + 15, panel.title, { size: 13.5, weight: 600 })
  if (panel.type === 'stat') return stat(answered, box)
  const frame = rect(box, { fill: COLOURS.panel, stroke: COLOURS.border, rx: 4 })
  const title = text(box.x + 12, box.y + 20, panel.title, { size: 12.5, weight: 600 })
  const inner = { ...box, y: box.y + 28, height: box.height - 28 }
  return frame + title + (panel.type === 'table' ? table(answered, inner) : chart(answered, inner, window))
}

/** One number on the colour that it has in the dashboard. */
function stat({ panel, series }: Answered, box: Box): string {
  const limit = panel.transformations?.find(({ id }) => id === 'configFromData')?.options.configRefId
  const value = series.find(({ refId }) => refId !== limit)?.points.at(-1)?.[1]
  const threshold = series.find(({ refId }) => refId === limit)?.points.at(-1)?.[1]
  const colour = value === undefined ? COLOURS.quiet : colourOf(panel, value, threshold)
  const word = panel.fieldConfig?.defaults.mappings?.[0]?.options[String(value)]?.text
  const said =
    value === undefined ? 'no data' : (word ?? shownAs(panel.fieldConfig?.defaults.unit ?? 'short', 0, value))
  return [
    rect(box, { fill: COLOURS.panel, stroke: COLOURS.border, rx: 4 }),
    rect({ ...box, width: 5 }, { fill: colour, rx: 2 }),
    text(box.x + 16, box.y + 22, panel.title, { size: 12, colour: COLOURS.quiet }),
    text(box.x + 16, box.y + 64, said, { size: said.length > 9 ? 22 : 28, weight: 600, colour }),
  ].join('')
}

function colourOf(panel: Panel, value: number, threshold: number | undefined): string {
  if (threshold !== undefined) return value >= threshold ? COLOURS.red : COLOURS.green
  const steps = panel.fieldConfig?.defaults.thresholds?.steps ?? []
  const reached = steps.filter((step) => step.value === null || value >= step.value).at(-1)
  return COLOURS[reached?.color as keyof typeof COLOURS] ?? COLOURS.green
}

/** Joined by their labels, one column a query, as the transformations of the panel do it. */
function table({ panel, series }: Answered, box: Box): string {
  const first = panel.transformations?.find(({ id }) => id === 'organize')?.options.indexByName ?? {}
  const labels = [...new Set(series.flatMap(({ labels }) => Object.keys(labels)))]
    .filter((name) => name !== '__name__')
    .sort((a, b) => (first[a] ?? 99) - (first[b] ?? 99))
  const values = (panel.targets ?? []).map(({ refId, legendFormat }) => ({ refId, title: legendFormat }))
  const keyOf = (of: Readonly<Record<string, string>>): string => labels.map((name) => of[name] ?? '').join('\0')
  const keys = [...new Set(series.map((each) => keyOf(each.labels)))]
  const rows = keys.map((key) => {
    const cells = values.map(({ refId, title }) => {
      const found = series.find((each) => each.refId === refId && keyOf(each.labels) === key)
      return found === undefined ? '' : shownAs(unitOf(panel, title), ...(found.points.at(-1) ?? [0, NaN]))
    })
    return [...key.split('\0'), ...cells]
  })
  if (rows.length === 0) return text(box.x + 12, box.y + 24, 'none', { size: 12, colour: COLOURS.quiet })
  return cellsOf([[...labels, ...values.map(({ title }) => title)], ...rows], box, labels.length)
}

function cellsOf(rows: readonly (readonly string[])[], box: Box, names: number): string {
  const columns = rows[0]?.length ?? 1
  const widest = Array.from({ length: columns }, (_, at) => Math.max(...rows.map((row) => (row[at] ?? '').length)) + 3)
  const all = widest.reduce((sum, each) => sum + each, 0)
  const lefts = widest.map(
    (_, at) => box.x + 12 + (widest.slice(0, at).reduce((sum, each) => sum + each, 0) / all) * (box.width - 24),
  )
  const most = Math.floor((box.height - 6) / 22)
  return rows
    .slice(0, most)
    .map((row, at) => {
      const y = box.y + 16 + at * 22
      const rule = line([box.x + 12, y + 7], [box.x + box.width - 12, y + 7], { stroke: COLOURS.grid })
      const cells = row.map((cell, column) => {
        const width = ((widest[column] ?? 1) / all) * (box.width - 24)
        const weight = at > 0 && column < names ? 600 : 400
        return text(lefts[column] ?? box.x, y, fitting(cell, width, 11.5), {
          size: 11.5,
          weight,
          colour: at === 0 ? COLOURS.quiet : COLOURS.text,
        })
      })
      return rule + cells.join('')
    })
    .join('')
}

function unitOf({ fieldConfig }: Panel, title: string): string {
  const own = fieldConfig?.overrides.find(({ matcher }) => matcher.options === title)
  const unit = own?.properties.find(({ id }) => id === 'unit')?.value
  return typeof unit === 'string' ? unit : (fieldConfig?.defaults.unit ?? 'short')
}
