CREATE TABLE customers (id INTEGER, name VARCHAR, city VARCHAR, grade VARCHAR, gender VARCHAR, birth_year INTEGER, joined DATE, points INTEGER);
CREATE TABLE products (id INTEGER, name VARCHAR, category VARCHAR, brand VARCHAR, price INTEGER, stock INTEGER);
CREATE TABLE orders (id INTEGER, customer_id INTEGER, ordered DATE, status VARCHAR, payment VARCHAR, amount INTEGER, fee INTEGER);
CREATE TABLE order_items (order_id INTEGER, product_id INTEGER, quantity INTEGER);
