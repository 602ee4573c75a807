"""``scrapy captcha``: one module for each of its subcommands."""
