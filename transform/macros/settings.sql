{#- The variables: checked once, then read by the models. A wrong one is a compilation error. -#}

{% macro refuse(message) %}
  {{ exceptions.raise_compiler_error(message) }}
{% endmacro %}

{#- `value` as a number, or an error that names the variable. -#}
{% macro checked_number(name, value, lowest, highest=none) %}
  {%- set number = none if value is boolean or value is none else value | float(none) -%}
  {%- if number is none or number != number or number < lowest
      or (highest is not none and number > highest) -%}
    {%- do tap_balance.refuse(
      name ~ ': must be a number'
      ~ (' from ' ~ lowest ~ ' to ' ~ highest if highest is not none else ' of at least ' ~ lowest)
      ~ ', not ' ~ value
    ) -%}
  {%- endif -%}
  {{ return(number | int if number == number | int else number) }}
{% endmacro %}

{% macro checked_mapping(name, value) %}
  {%- if value is not mapping -%}
    {%- do tap_balance.refuse(name ~ ': must be a mapping, not ' ~ value) -%}
  {%- endif -%}
  {{ return(value) }}
{% endmacro %}

{#- Each threshold of an account: its lowest and highest value. -#}
{% macro threshold_ranges() %}
  {{ return({
    'critical_days': [0.01, 3650], 'low_days': [0.01, 3650], 'target_days': [0.01, 3650],
    'min_balance': [0, 100000000000],
  }) }}
{% endmacro %}

{#- All settings, by name. Amounts are in currency. -#}
{% macro settings() %}
  {%- set numbers = {
    'snapshot_interval_seconds': [1, 86400],
    'release_margin_percent': [0, 1000],
    'memory_days': [1, 60],
    'min_history_days': [3, 28],
    'horizon_days': [1, 24855],
    'idle_min_balance': [0, 100000000000],
    'top_up_step': [0.0001, 100000000000],
    'lookback_hours': [0, 8760],
    'alert_memory_days': [1, 3650],
  } -%}
  {%- set found = {} -%}
  {%- for name, range in numbers.items() -%}
    {%- do found.update({name: tap_balance.checked_number(name, var(name), *range)}) -%}
  {%- endfor -%}
  {%- for name in ['memory_days', 'min_history_days', 'horizon_days', 'snapshot_interval_seconds']
      if found[name] != found[name] | int -%}
    {%- do tap_balance.refuse(name ~ ': must be a whole number, not ' ~ found[name]) -%}
  {%- endfor -%}

  {#- The Airflow DAG sets the environment variable, which takes precedence. -#}
  {%- set scheduled = env_var('DBT_SNAPSHOT_INTERVAL_SECONDS', '') -%}
  {%- if scheduled -%}
    {%- do found.update({'snapshot_interval_seconds': tap_balance.checked_number(
      'DBT_SNAPSHOT_INTERVAL_SECONDS', scheduled, 1, 86400
    )}) -%}
  {%- endif -%}
  {%- set stale_after = var('stale_after_seconds') -%}
  {%- do found.update({
    'stale_after_seconds': 3 * found['snapshot_interval_seconds'] if stale_after is none
      else tap_balance.checked_number('stale_after_seconds', stale_after, 1)
  }) -%}

  {%- set ranges = tap_balance.threshold_ranges() -%}
  {%- for name in ['critical_days', 'low_days', 'target_days'] -%}
    {%- do found.update({name: tap_balance.checked_number(name, var(name), *ranges[name])}) -%}
  {%- endfor -%}
  {#- A number for all, or one for each currency. -#}
  {%- set min_balance = var('min_balance') -%}
  {%- set by_currency = min_balance if min_balance is mapping else {} -%}
  {%- do found.update({'min_balance': 0 if min_balance is mapping
    else tap_balance.checked_number('min_balance', min_balance, *ranges['min_balance'])}) -%}
  {%- set checked = {} -%}
  {%- for currency, least in by_currency.items() -%}
    {%- do checked.update({currency: tap_balance.checked_number(
      'min_balance of ' ~ currency, least, *ranges['min_balance']
    )}) -%}
  {%- endfor -%}
  {%- do found.update({'min_balances': checked}) -%}

  {%- set accounts = {} -%}
  {%- set thresholds = tap_balance.checked_mapping('account_thresholds', var('account_thresholds')) -%}
  {%- for account, given in thresholds.items() -%}
    {%- set own = {} -%}
    {%- set where = 'account_thresholds of ' ~ account -%}
    {%- for key, value in tap_balance.checked_mapping(where, given).items() -%}
      {%- if key not in ranges -%}
        {%- do tap_balance.refuse(
          where ~ ': unknown threshold ' ~ key ~ '; known are ' ~ ranges.keys() | join(', ')
        ) -%}
      {%- endif -%}
      {%- do own.update({key: tap_balance.checked_number(where ~ ': ' ~ key, value, *ranges[key])}) -%}
    {%- endfor -%}
    {%- do accounts.update({account: own}) -%}
  {%- endfor -%}
  {%- do found.update({'account_thresholds': accounts}) -%}
  {%- for account, own in [('', {})] + accounts.items() | list -%}
    {%- set critical = own.get('critical_days', found['critical_days']) -%}
    {%- set low = own.get('low_days', found['low_days']) -%}
    {%- if critical > low -%}
      {%- do tap_balance.refuse(
        ('account_thresholds of ' ~ account ~ ': ' if account else '')
        ~ 'critical_days (' ~ critical ~ ') must not be greater than low_days (' ~ low ~ ')'
      ) -%}
    {%- endif -%}
  {%- endfor -%}

  {%- set retired = var('retired_accounts') -%}
  {%- if retired is string or retired is mapping or retired is not iterable -%}
    {%- do tap_balance.refuse(
      'retired_accounts: must be a list of account names, not ' ~ retired
    ) -%}
  {%- endif -%}
  {%- do found.update({'retired_accounts': retired}) -%}
  {{ return(found) }}
{% endmacro %}

{#- A text that changes with any of them, for rows that are kept. -#}
{% macro settings_key() -%}
  {{ local_md5(tojson(tap_balance.settings())) }}
{%- endmacro %}

{#- Log a warning for each account that is named in a setting and has no snapshot. -#}
{% macro warn_of_unknown_accounts(snapshots) %}
  {%- set settings = tap_balance.settings() -%}
  {%- set named = {} -%}
  {%- for account in settings['account_thresholds'] -%}
    {%- do named.update({account: 'account_thresholds'}) -%}
  {%- endfor -%}
  {%- for account in settings['retired_accounts'] -%}
    {%- do named.update({account: 'retired_accounts'}) -%}
  {%- endfor -%}
  {%- if execute and named and not flags.EMPTY -%}
    {%- set known = run_query(
      'select distinct account from ' ~ snapshots ~ ' where account in ('
      ~ tap_balance.text_list(named.keys()) ~ ')'
    ).columns[0].values() -%}
    {%- for account, setting in named.items() if account not in known -%}
      {%- do exceptions.warn(
        setting ~ ": no snapshots of the account '" ~ account ~ "'; check its name"
      ) -%}
    {%- endfor -%}
  {%- endif -%}
{% endmacro %}

{#- In Snowflake's literals a backslash begins an escape. -#}
{% macro text_literal(text) -%}
  {%- set text = (text | string).replace("'", "''") -%}
  '{{ text.replace('\\', '\\\\') if target.type == 'snowflake' else text }}'
{%- endmacro %}

{% macro text_list(texts) -%}
  {% for text in texts %}{{ tap_balance.text_literal(text) }}{{ ', ' if not loop.last }}{% endfor %}
{%- endmacro %}

{#- The threshold `name` of each account, in days or in currency. -#}
{% macro threshold(name, type='numeric(9, 2)') -%}
  {%- set settings = tap_balance.settings() -%}
  {%- set cases = [] -%}
  {%- for account, own in settings['account_thresholds'].items() if name in own -%}
    {%- do cases.append(
      'when account = ' ~ tap_balance.text_literal(account) ~ ' then ' ~ own[name]
    ) -%}
  {%- endfor -%}
  {%- if name == 'min_balance' -%}
    {%- for currency, least in settings['min_balances'].items() -%}
      {%- do cases.append(
        'when currency = ' ~ tap_balance.text_literal(currency) ~ ' then ' ~ least
      ) -%}
    {%- endfor -%}
  {%- endif -%}
  {%- if cases -%}
    cast(case {{ cases | join(' ') }} else {{ settings[name] }} end as {{ type }})
  {%- else -%}
    cast({{ settings[name] }} as {{ type }})
  {%- endif -%}
{%- endmacro %}
