"""From files of any container and shape to rows: readers yield lines, shapes make records of them."""
