"""What the words of a refusal mean, whoever wrote them. Pure.

Services, gateways and models phrase the same thing in many ways, so each meaning is a family of words rather than a
list of messages. All meanings are refusals, so a misread one still counts as not executed.
"""

from __future__ import annotations

import re

_MODERATION = re.compile(
    r"""
    sensitive(?:content|information|word|text|image|_)  | (?<!case.)(?<![a-z])sensitive(?![ ]to)
    | content[ _-]?(?:filter|policy|moderation|safety|risk|security|violation|check|review|guideline|audit)
    | (?:prompt|text|image|input)[ _](?:audit|review|moderation)
    | content[ ]exists[ ]risk | moderat(?:ion|ed|or) | safety | \bunsafe\b | nsfw | prohibited | inappropriate
    | (?:violat\w+|breach\w*|against|infring\w+)\W(?:\w+\W+){0,6}?
      (?:polic|terms|guideline|content|rules|standard|law|copyright|right)
    | (?:polic\w+|terms|guidelines?|copyright)[ _-](?:violat|infring|breach)
    | data_?inspection | risk[ _-]?(?:control|detect|content|level|word) | (?:content|prompt|text|image|input)[ _-]risk
    | responsible[ _]ai | (?:banned|forbidden|blocked|illegal|disallowed|harmful|explicit|offensive|flagged|restricted)
      [ _](?:\w+[ _])?(?:word|content|prompt|term|keyword|text|image|input|phrase)
    | (?:flagged|blocked|rejected|filtered)\W(?:\w+\W+){0,4}?(?:filter|polic|safety|review|system|harmful|unsafe)
    | (?:content|text|img|image|risk)[ ](?:did[ ])?not[ ]pass
    | (?:内容|图像|图片|文本|提示词)\w{0,8}(?:不当|禁止|被拒)
    | (?:was|been|is|were)[ ]flagged | censored | responsible_?ai | blocklist | safety_?violation | 禁止された | 유해
    | infringe\b | запрещ[её]н | нарушает
    | nudity | pornograph | sexual | self-harm | hate[ _]speech | gore\b | minors\b | celebrit | public[ _]figure
    | 敏感 | 违规 | 违禁 | 违反 | 审核 | 不合规 | 合规 | 内容安全 | 安全策略 | 风险 | 风控 | 色情 | 涉黄 | 涉政 | 暴力
    | 不良 | 屏蔽 | 不安全 | 审查 | 審査 | 不雅 | 安全でない
    # The word for content: other languages than English use it for little else in an error.
    | \b(?:contenido|conteúdo|contenuto|contenu|inhalte?|inhoud|innehåll\w*|konten|içerik\w*|tre[śs][ćc]\w*|obsah\w*)\b
    | nội[ ]dung | контент | содержим | содержани | вміст | محتو | เนื้อหา | सामग्री | コンテンツ | 콘텐츠
    | 版权 | 侵权 | 敏感詞 | 違規 | 審核 | 不適切 | ポリシー | センシティブ
    | 부적절 | 정책 | 민감
    """,
    re.IGNORECASE | re.VERBOSE,
)

_MODERATION_CODES = re.compile(r"(?i)^(?:risk|sensitive|safety|censored|nsfw|moderated|blocked_content|unsafe)$")

_TOO_LITTLE = r"""
    (?:insufficient|not[ _](?:enough|sufficient)|low|no|zero|negative|exhausted|depleted|exceeded|out[ _]of)
      [ _-](?:\w+[ _-]){0,3}?(?:quota|balance|credit|fund|money)s?
    | (?:quota|balance|credit|fund)s?\W(?:\w+\W){0,4}?
      (?:insufficient|not[ _](?:enough|sufficient)|exhausted|exceeded|used[ _]up|too[ _]low|depleted|left|required
      |running[ _]out|empty)
    | (?:quota|balance|credit)s?_?(?:exceeded|exhausted|insufficient|not_enough)
    | (?:余额|餘額|額度|额度|配额|点数|點數|积分|積分)(?:不足|不够|不夠|已用完|已耗尽|已用尽) | 欠费 | 欠費
    | (?:spend(?:ing)?|budget|credit|monthly|daily)[ ](?:limit|cap)\b | arrear(?:s|age)\b
    | overdue[ ](?:balance|payment|bill|invoice) | account[ _-]?overdue | set_?limit_?exceeded
    | budget\W(?:\w+\W){0,3}?exceeded | exceeded_?budget | budget_exceeded
    | (?:消费|消費|支出|用量)(?:限额|上限)
    """
_LACKS_MONEY = re.compile(_TOO_LITTLE, re.IGNORECASE | re.VERBOSE)
_BALANCE = re.compile(
    rf"""
    {_TOO_LITTLE}
    | payment[ _]required | pre[ _-]?(?:deduct|consume)\w*[ _](?:\w+[ _])?failed | billing | arrears? | overdue
    | (?:top[ -]?up|recharge|add[ ]funds|purchase[ ]more|buy[ ]more[ ]credits)
    | 余额 | 額度 | 额度 | 充值 | 配额 | 預扣 | 预扣 | 残高 | 잔액
    """,
    re.IGNORECASE | re.VERBOSE,
)

_PER_TIME = re.compile(
    r"(?i)per[ _-]?(?:second|minute|sec|min)\b|\b(?:rpm|tpm|qps|rps)\b|concurren|requests? rate|rate[ _-]?limit"
    r"|too many requests|每分钟|每秒|并发|频率|请求过于频繁"
)

_TOO_FAST = re.compile(
    r"(?i)concurren|too[ _-]?many[ _-]?(?:requests|tasks|jobs)|rate[ _-]?limit|throttl|too[ _-]?fast|too[ _-]?frequent"
    r"|requests?[ ]per[ ](?:second|minute)|并发|频率|频繁|過於頻繁|同時実行|동시"
)
_NOT_OFFERED = re.compile(
    r"(?i)\bmodel\b\W{1,3}(?:[\w./:-]+\W{1,3})?(?:is[ ]|was[ ]|does[ ]|has[ ]been[ ])?(?:currently[ ])?"
    r"(?:not[ ](?:found|exist|supported|available|enabled|offered)|unavailable|unknown|disabled|deprecated|retired)"
    r"|(?:unknown|invalid|unsupported|no[ ]such|no[ ]access[ ]to(?:[ ]the)?|not[ ](?:found|allowed):?)"
    r"[ ]model\b(?![ ](?:param|option|setting|input))"
    r"|模型(?:\S{0,30})(?:不存在|已下线|不可用|未开通|不支持$)"
)
_NO_MODEL = re.compile(r"(?i)\bno (?:available|usable|enabled) channels?\b|无可用(?:的)?渠道|\bno channel available\b")

_REFERENCE = re.compile(
    r"(?i)image[ _-]?urls?|reference|input[ _-]?image|image[ _-]?(?:input|link|download|fetch)"
    r"|参考图|图片(?:下载|链接|地址)"
    r"|(?:fetch|download|load|access|read|retriev|open|get)\w*\W+(?:\w+\W+){0,5}?(?:image|url|file|link|picture)"
    r"|(?:image|url|file|link|picture)\W+(?:\w+\W+){0,5}?(?:expired|not found|unreachable|inaccessible|unavailable)"
)
_UNREACHED = re.compile(
    r"(?i)fetch|download|load|access|reach|retriev|expire|not found|no longer|unavailable|does not exist|gone\b"
    r"|timed? ?out|\b(?:40[134]|410)\b|invalid[ _-]?(?:image[ _-]?)?url|cannot (?:be )?(?:open|read|get)"
    r"|failed to (?:get|open|read)"
    r"|下载|获取|过期|失效|无法访问|不存在|无法读取"
)


_UNKNOWN_TASK = re.compile(
    r"""
    (?:task|job|record|generation|request)(?:[ _-]?ids?)?\W*[\w"'-]{0,80}\W+(?:\w+\W+){0,3}?
      (?:not[ _-]?(?:exists?|found|known)|unknown|expired|gone|missing|invalid|deleted)
    | (?:task|job|record|generation)(?:[ _-]?id)?[ _-]?(?:is[ _-]|was[ _-]|has[ _-]|does[ _-]|could[ _-])?
      (?:not[ _-]?(?:be[ _-])?(?:exists?|found|known)|unknown|expired|gone|missing|invalid|deleted)
    | (?:unknown|no[ ]such|invalid|cannot[ ]find|could[ ]not[ ]find|not[ _]found:?)[ _](?:the[ ])?
      (?:task|job|record|generation)
    | 任务(?:ID|id)?\s*(?:不存在|未找到|已过期|无效)
    """,
    re.IGNORECASE | re.VERBOSE,
)


def is_moderation(code: str, message: str) -> bool:
    """Return whether a refusal is about the content, so that resending the same request is useless."""
    return bool(_MODERATION_CODES.match(code) or _MODERATION.search(f"{code} {message}"))


def is_balance(code: str, kind: str, message: str) -> bool:
    """Return whether a refusal says that the balance is too low, not that requests come too fast."""
    text = f"{code} {kind} {message}"
    # "quota" is used for both; a message that mentions minutes or a rate is about the rate limit.
    return bool(_BALANCE.search(text)) and not (_PER_TIME.search(message) or _PER_TIME.search(code))


def lacks_money(code: str, kind: str, message: str) -> bool:
    """Return whether a refusal explicitly says that the balance is too low, rather than just mentioning money."""
    return bool(_LACKS_MONEY.search(f"{code} {kind} {message}")) and is_balance(code, kind, message)


def is_too_fast(code: str, message: str) -> bool:
    """Return whether a refusal says that too many requests come at once or too soon; later ones are accepted."""
    return bool(_TOO_FAST.search(f"{code} {message}"))


def is_no_model(code: str, message: str, *, certain: bool = False) -> bool:
    """Return whether a gateway says that it has no upstream for the model, so that nothing was executed.

    If the message mentions a retry, the gateway's first attempt failed, and something may have been executed. With
    `certain`, it was not executed anyway, and other wordings count too.
    """
    named = code.lower() in {"model_not_found", "no_available_channel"} or bool(_NO_MODEL.search(message))
    return (named and "retry" not in message.lower()) or (certain and bool(_NOT_OFFERED.search(message)))


def is_dead_reference(code: str, message: str) -> bool:
    """Return whether a refusal says that a reference image could not be fetched from its URL."""
    text = f"{code} {message}"
    return bool(_REFERENCE.search(text) and _UNREACHED.search(text))


def is_unknown_task(code: str, message: str) -> bool:
    """Return whether a refusal says that the service does not know the task."""
    return bool(_UNKNOWN_TASK.search(f"{code} {message}"))
