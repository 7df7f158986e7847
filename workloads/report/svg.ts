/** What goes into the page, as the page's language wants it. */

export function px(value: number): string {
  return value.toFixed(2);
}

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
