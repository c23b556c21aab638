// Reads of some tables see what was written a moment ago: they go to the primary. The rest is Tidegate's choice.

let fresh = [];

export function init(config) {
  const { tables = [], ...unknown } = JSON.parse(config || '{}');
  const surplus = Object.keys(unknown);
  if (surplus.length > 0 || !Array.isArray(tables)) {
    throw surplus.length > 0 ? `there is no setting ${surplus[0]}` : 'tables must be a list';
  }
  fresh = tables;
  return { name: 'fresh-reads', version: '0.1.0', description: 'Reads of some tables go to the primary' };
}

export const route = {
  planRoute(shape) {
    const isFresh = shape.tables.some((table) => fresh.includes(table.name));
    return { target: { tag: isFresh ? 'primary' : 'built-in' }, priority: 'normal', label: isFresh ? 'fresh' : undefined };
  },
  weigh: () => [],
  clusterChanged() {},
  decide: () => -3n, // never asked, since no plan says `ask`
};
