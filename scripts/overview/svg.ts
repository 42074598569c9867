/** As little of SVG as the picture needs. Whatever comes from outside is escaped. */

export interface Box {
  readonly x: number
  readonly y: number
  readonly width: number
  readonly height: number
}

export const COLOURS = {
  page: '#eef0f3',
  panel: '#ffffff',
  border: '#d5d9e0',
  text: '#1f2430',
  quiet: '#6b7280',
  grid: '#e7e9ee',
  red: '#d92d20',
  orange: '#c4620a',
  green: '#1a7f4b',
} as const

/** Told apart also by those who see few colours. */
export const LINES = ['#1f77b4', '#e07b00', '#2a9d57', '#8f5bc4', '#b0413e', '#0f9aa8', '#7a7a2c', '#d14f94']

type Attributes = Readonly<Record<string, string | number>>

export function element(name: string, attributes: Attributes, content = ''): string {
  const said = Object.entries(attributes).map(([key, value]) => ` ${key}="${escaped(String(value))}"`)
  return content === '' ? `<${name}${said.join('')}/>` : `<${name}${said.join('')}>${content}</${name}>`
}

export function rect(box: Box, attributes: Attributes): string {
  return element('rect', { ...box, ...attributes })
}

export interface TextStyle {
  readonly size?: number
  readonly colour?: string
  readonly weight?: number
  readonly anchor?: 'start' | 'middle' | 'end'
}

export function text(x: number, y: number, said: string, style: TextStyle = {}): string {
  const { size = 11, colour = COLOURS.text, weight = 400, anchor = 'start' } = style
  const attributes = { x: round(x), y: round(y), 'font-size': size, fill: colour, 'text-anchor': anchor }
  return element('text', weight === 400 ? attributes : { ...attributes, 'font-weight': weight }, escaped(said))
}

export function line(from: readonly [number, number], to: readonly [number, number], attributes: Attributes): string {
  return element('line', { x1: round(from[0]), y1: round(from[1]), x2: round(to[0]), y2: round(to[1]), ...attributes })
}

/** Shortened to about this width: a browser may have another font, so there is some room. */
export function fitting(said: string, width: number, size: number): string {
  const most = Math.max(3, Math.floor(width / (size * 0.56)))
  return said.length <= most ? said : `${said.slice(0, most - 1)}…`
}

export function round(value: number): number {
  return Math.round(value * 10) / 10
}

function escaped(said: string): string {
  return said.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}
