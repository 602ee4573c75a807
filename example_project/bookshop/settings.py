"""The project's settings. Every ``CAPTCHA_`` setting is here, most at its default."""

BOT_NAME = "bookshop"
SPIDER_MODULES = ["bookshop.spiders"]
NEWSPIDER_MODULE = "bookshop.spiders"

# Where the shop is. Start it with `python captcha_site.py` for this address, or let run.py start it
# on a free port and say so here with `-s SHOP_URL=...`.
SHOP_URL = "http://127.0.0.1:8000/"

ROBOTSTXT_OBEY = True
ITEM_PIPELINES = {
    "bookshop.pipelines.PriceToDecimal": 100,
    "bookshop.pipelines.DropDuplicates": 200,
}
EXTENSIONS = {"bookshop.extensions.CaptchaSummary": 500}

# The one line that enables scrapy-captcha.
ADDONS = {"scrapy_captcha.Addon": 500}

# The sites whose captchas are read, each with its rule: only sites whose owner allows you to crawl
# them this way. A key is a host, host:port, or a parent domain. No other host is ever touched.
# An empty rule lets the captcha, its form and its field be found by themselves; what is known of
# the captcha makes the reading better.
CAPTCHA_SITES = {
    "127.0.0.1": {
        "length": 4,
        "charset": "abcdefghijklmnopqrstuvwxyz0123456789",
    },
}

# The model that reads: "auto" (a shipped one, chosen by the rule's length), the name of a shipped
# one ("alnum4"), or the folder of one that you trained.
CAPTCHA_MODEL = "auto"

# What the service is shown when the model is the URL of one ("http://127.0.0.1:8090", which
# `scrapy captcha serve` starts). None takes the environment variable of the same name.
CAPTCHA_SERVICE_TOKEN = None

# Where each answer that the site judged is kept, as an image with its label, for training. None
# keeps nothing.
CAPTCHA_DATASET = "captchas"

# How many answers are submitted for one wall or one form before its request fails with
# CaptchaUnsolved. The default is 8; this shop draws its captchas in a style that the shipped model
# was not trained on, so it gets more.
CAPTCHA_MAX_ATTEMPTS = 20

# Readings below this confidence (0 to 1) are not submitted: a new image is fetched instead. None
# chooses it by how often the site has accepted lately.
CAPTCHA_MIN_CONFIDENCE = None

# After so many newly confirmed images of a site its reader is trained on them, beside the crawl;
# 25 is a good number. Needs the extra `train`. None trains only when you do: see the README.
CAPTCHA_RETRAIN_AFTER = None

# Seconds that one solve may take, all its attempts together.
CAPTCHA_TIMEOUT = 60

# After this many failed solves in a row the site's pages fail at once, without a new attempt.
CAPTCHA_BREAKER = 8

# Whether that also closes the spider, with the reason "captcha_unsolved".
CAPTCHA_CLOSE_SPIDER = False
