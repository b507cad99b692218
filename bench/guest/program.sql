-- What the row sqlite3 runs.
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, kind INTEGER, price REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
INSERT INTO item SELECT i, 'item ' || (i * 7919 % 12007), i % 97, (i * 31 % 1000) / 8.0 FROM n;
CREATE INDEX by_name ON item (name);
CREATE INDEX by_kind ON item (kind, price);
SELECT count(*), sum(price), max(name) FROM item;
SELECT kind, count(*), round(avg(price), 3) FROM item GROUP BY kind HAVING avg(price) > 62.5 ORDER BY 3 DESC LIMIT 5;
SELECT count(*) FROM item a JOIN item b ON a.kind = b.kind AND a.price = b.price WHERE a.id < 2000;
UPDATE item SET price = price * 1.5 WHERE name LIKE '%77%';
DELETE FROM item WHERE id % 5 = 0;
SELECT count(*), round(total(price), 2), min(name) FROM item WHERE kind BETWEEN 10 AND 60;
