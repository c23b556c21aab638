-- The demo's data: a small shop. The same rows every time, since the seed is fixed.
SET client_min_messages = warning;
SELECT setseed(0.42) \g /dev/null

CREATE TYPE order_status AS ENUM ('placed', 'paid', 'shipped', 'delivered', 'returned');

CREATE TABLE customers (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    email      text NOT NULL UNIQUE,
    city       text NOT NULL,
    joined_at  timestamptz NOT NULL
);
CREATE TABLE products (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku        text NOT NULL UNIQUE,
    name       text NOT NULL,
    category   text NOT NULL,
    price      numeric(8, 2) NOT NULL CHECK (price > 0),
    stock      integer NOT NULL CHECK (stock >= 0)
);
CREATE TABLE orders (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id integer NOT NULL REFERENCES customers,
    status      order_status NOT NULL,
    placed_at   timestamptz NOT NULL
);
CREATE TABLE order_items (
    order_id   integer NOT NULL REFERENCES orders ON DELETE CASCADE,
    product_id integer NOT NULL REFERENCES products,
    quantity   integer NOT NULL CHECK (quantity > 0),
    unit_price numeric(8, 2) NOT NULL,
    PRIMARY KEY (order_id, product_id)
);

WITH words AS (
    SELECT ARRAY['Ada', 'Amir', 'Beatriz', 'Chen', 'Dagny', 'Elif', 'Emeka', 'Fatima', 'Giulia', 'Hiro', 'Ines',
                 'Jonas', 'Kofi', 'Lena', 'Mateo', 'Nadia', 'Oskar', 'Priya', 'Rosa', 'Sven', 'Tariq', 'Uma',
                 'Vera', 'Wanjiru', 'Yusuf', 'Zofia'] AS first,
           ARRAY['Almeida', 'Bauer', 'Castillo', 'Dubois', 'Eriksen', 'Fischer', 'Garcia', 'Haddad', 'Ivanova',
                 'Jensen', 'Kowalski', 'Lindqvist', 'Moreau', 'Nakamura', 'Okafor', 'Petrov', 'Quispe', 'Rossi',
                 'Sato', 'Tanaka', 'Usman', 'Visser', 'Weber', 'Yilmaz', 'Zhang'] AS last,
           ARRAY['Berlin', 'Lagos', 'Lima', 'Lisbon', 'Lyon', 'Mumbai', 'Nairobi', 'Osaka', 'Oslo', 'Porto',
                 'Prague', 'Quito', 'Rome', 'Seoul', 'Tallinn', 'Toronto', 'Utrecht', 'Vienna', 'Warsaw'] AS city
)
INSERT INTO customers (name, email, city, joined_at)
SELECT person.first || ' ' || person.last,
       lower(person.first || '.' || person.last) || person.n || '@example.com',
       person.city,
       timestamptz '2026-01-01' - random() * interval '900 days'
FROM (SELECT n,
             first[1 + floor(random() * cardinality(first))::int] AS first,
             last[1 + floor(random() * cardinality(last))::int] AS last,
             -- Cities differ in size: the square of a random number prefers the first.
             city[1 + floor(random() ^ 2 * cardinality(city))::int] AS city
      FROM words, generate_series(1, 5000) AS n) AS person;

WITH words AS (
    SELECT ARRAY['oak', 'birch', 'linen', 'wool', 'steel', 'copper', 'glass', 'clay', 'cork', 'canvas'] AS material,
           ARRAY['small', 'large', 'folding', 'striped', 'plain', 'round'] AS shape,
           ARRAY['chair', 'table', 'lamp', 'shelf', 'blanket', 'cushion', 'kettle', 'mug', 'bowl', 'basket'] AS thing,
           ARRAY['furniture', 'furniture', 'lighting', 'furniture', 'textiles', 'textiles', 'kitchen', 'kitchen',
                 'kitchen', 'storage'] AS category
)
INSERT INTO products (sku, name, category, price, stock)
SELECT upper(left(category[t], 3)) || '-' || lpad(row_number() OVER (ORDER BY t, m, s)::text, 4, '0'),
       initcap(shape[s] || ' ' || material[m] || ' ' || thing[t]),
       category[t],
       round((6 + 180 * random() ^ 3)::numeric, 2) - 0.01,
       floor(random() * 200)::int
FROM words, generate_series(1, 10) AS t, generate_series(1, 10) AS m, generate_series(1, 6) AS s;

INSERT INTO orders (customer_id, status, placed_at)
SELECT 1 + floor(random() ^ 2 * 5000)::int,
       CASE WHEN age < 1 THEN 'placed' WHEN age < 3 THEN 'paid' WHEN age < 8 THEN 'shipped'
            WHEN random() < 0.04 THEN 'returned' ELSE 'delivered' END::order_status,
       timestamptz '2026-06-30 12:00+00' - age * interval '1 day'
FROM (SELECT random() * 540 AS age FROM generate_series(1, 30000)) AS ages;

INSERT INTO order_items (order_id, product_id, quantity, unit_price)
SELECT basket.order_id, product.id, 1 + floor(random() ^ 3 * 4)::int, product.price
FROM (SELECT DISTINCT orders.id AS order_id, 1 + floor(random() ^ 1.5 * 600)::int AS product_id
      FROM orders, generate_series(1, 1 + orders.id % 4)) AS basket
JOIN products AS product ON product.id = basket.product_id;

CREATE INDEX ON orders (customer_id);
CREATE INDEX ON orders (placed_at);
CREATE INDEX ON order_items (product_id);
CREATE INDEX ON customers (city);
CREATE INDEX ON products (category);

CREATE VIEW revenue_by_month AS
SELECT date_trunc('month', placed_at) AS month,
       count(DISTINCT orders.id) AS orders,
       sum(quantity * unit_price) AS revenue
FROM orders JOIN order_items ON order_items.order_id = orders.id
WHERE status <> 'returned'
GROUP BY 1;

GRANT USAGE ON SCHEMA public TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app;
ANALYZE;
