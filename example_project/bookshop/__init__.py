"""A Scrapy project that crawls a bookshop behind captchas."""
